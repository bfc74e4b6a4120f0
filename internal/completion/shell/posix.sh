# The integration of dash, ash and the Korn shells, which have no hooks: all is in PS1, which
# names variables that are not exported. Whoever sets PS1 anew takes the marks away, until this
# is read again.
case $- in *a*)
  _telexec_allexport=1
  set +a
  ;;
esac
_telexec_d="@ESC@]133;D;"
_telexec_a=";a;p=$$;k=@NONCE@@BEL@"
_telexec_b="@ESC@]133;B;p=$$;k=@NONCE@@BEL@"
_telexec_kind=dash _telexec_width=plain
case ${KSH_VERSION-} in
*MIRBSD* | *LEGACY*) _telexec_kind=mksh _telexec_width=enclosed ;;
*"PD KSH"*) _telexec_kind=ksh _telexec_width=brackets ;;
?*) _telexec_kind=ksh ;;
*)
  if [ "${_telexec_is-}" = ash ] || [ -n "${BB_ASH_VERSION-}${FUNCNAME+set}" ]; then
    _telexec_kind=ash _telexec_width=brackets
  elif [ -n "${YASH_VERSION-}${NETBSD_SHELL-}" ]; then
    _telexec_kind=
  else
    # The prompt of this sh is not expanded.
    case $(uname -s) in FreeBSD | DragonFly) _telexec_kind= ;; esac
  fi
  ;;
esac
# What is read-only cannot be had.
case $(readonly -p) in *" PS1="* | *" PS1") _telexec_kind= ;; esac
if [ -n "$_telexec_kind" ]; then
  case ${PS1-} in
  *_telexec_b*) _telexec_width=there ;;
  esac
  case $_telexec_width in
  plain) PS1='${_telexec_d:+$_telexec_d$?$_telexec_a}'"${PS1-}"'${_telexec_b-}' ;;
  brackets) PS1='\[${_telexec_d:+$_telexec_d$?$_telexec_a}\]'"${PS1-}"'\[${_telexec_b-}\]' ;;
  enclosed)
    # A character before a CR at the start encloses what has no width.
    _telexec_q=@SOH@
    case ${PS1-} in
    ?"@CR@"*)
      _telexec_q=${PS1%"${PS1#?}"}
      PS1=${PS1#??}
      ;;
    esac
    PS1="$_telexec_q@CR@$_telexec_q"'${_telexec_d:+$_telexec_d$?$_telexec_a}'"$_telexec_q${PS1-}$_telexec_q"'${_telexec_b-}'"$_telexec_q"
    unset _telexec_q
    ;;
  esac
  printf '@ESC@]133;P;pid=%s;shell=%s;level=%s;starts=0;k=@NONCE@@BEL@' "$$" "$_telexec_kind" "${SHLVL-0}" >&2
fi
unset _telexec_kind _telexec_width _telexec_is
if [ -n "${_telexec_allexport-}" ]; then
  unset _telexec_allexport
  set -a
fi
