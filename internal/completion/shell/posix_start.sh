# What a login shell reads, for a shell that was started with ENV set to this file.
rm -f -- "$TELEXEC_RC"
if [ -n "${TELEXEC_ENV+set}" ]; then
  export ENV="$TELEXEC_ENV"
else
  unset ENV
fi
unset TELEXEC_RC TELEXEC_ENV
if [ -r /etc/profile ]; then . /etc/profile; fi
if [ -r ~/.profile ]; then . ~/.profile; fi
if [ -n "${ENV-}" ]; then
  eval "_telexec_env=\"$ENV\""
else
  case ${KSH_VERSION-} in
  *MIRBSD* | *LEGACY*) _telexec_env=~/.mkshrc ;;
  ?*) _telexec_env=~/.kshrc ;;
  *) _telexec_env= ;;
  esac
fi
if [ -n "$_telexec_env" ] && [ -r "$_telexec_env" ]; then . "$_telexec_env"; fi
unset _telexec_env
