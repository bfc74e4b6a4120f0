# What a login shell reads, for bash that was started as "-bash --posix" (which alone reads
# $ENV, this file) or, where it is too old for that, with --rcfile. At the top level, so that
# the declarations in those files stay what they are.
\rm -f -- "$TELEXEC_RC"
if [ -n "${TELEXEC_ENV+set}" ]; then
  \export ENV="$TELEXEC_ENV"
else
  \unset ENV
fi
\unset TELEXEC_RC TELEXEC_ENV
case ${0##*/} in
sh | -sh)
  if [ -r /etc/profile ]; then . /etc/profile; fi
  if [ -r ~/.profile ]; then . ~/.profile; fi
  if [ -n "${ENV-}" ]; then
    \eval "_telexec_env=\"$ENV\""
    if [ -r "$_telexec_env" ]; then . "$_telexec_env"; fi
    \unset _telexec_env
  fi
  ;;
*)
  \set +o posix
  \shopt -u inherit_errexit 2>/dev/null
  if [ "${HISTFILE-}" = ~/.sh_history ]; then HISTFILE=~/.bash_history; fi
  if [ "${MAILCHECK-}" = 600 ]; then MAILCHECK=60; fi
  if [ -r /etc/profile ]; then . /etc/profile; fi
  if [ -r ~/.bash_profile ]; then
    . ~/.bash_profile
  elif [ -r ~/.bash_login ]; then
    . ~/.bash_login
  elif [ -r ~/.profile ]; then
    . ~/.profile
  fi
  ;;
esac
