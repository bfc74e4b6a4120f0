# The integration of zsh. What it sets is _telexec_*, two hooks, PROMPT_EOL_MARK and the end of
# PS1, and it forks nothing. The end of a command is told in PROMPT_EOL_MARK, which zsh prints
# right behind its output, before any precmd.
if [[ -o allexport ]]; then
  _telexec_allexport=1
  \builtin unsetopt allexport
fi
_telexec_b="%{@ESC@]133;B;p=$$;k=@NONCE@@BEL@%}"
_telexec_eol="%{@ESC@]133;D;%?;a;p=$$;k=@NONCE@@BEL@%}"
_telexec_fresh=1

_telexec_precmd() {
  {
    \builtin local -i code="$?"
    \builtin setopt localoptions no_warn_create_global no_xtrace no_allexport
    if (( _telexec_fresh )); then
      _telexec_fresh=0
      \builtin print -rn -u9 -- "@ESC@]133;P;pid=$$;shell=zsh;level=${SHLVL:-0};starts=1;k=@NONCE@@BEL@"
    elif [[ ${PROMPT_EOL_MARK-} != "$_telexec_eol"* || ! -o promptsp || ! -o promptcr || ! -o promptpercent ]]; then
      \builtin print -rn -u9 -- "@ESC@]133;D;$code;p=$$;k=@NONCE@@BEL@"
    fi
    if [[ ${(t)PROMPT_EOL_MARK-} != *readonly* ]]; then
      if [[ ! -o promptpercent ]]; then
        # It would be seen.
        PROMPT_EOL_MARK=${${PROMPT_EOL_MARK-}//$_telexec_eol/}
      elif (( ! ${+PROMPT_EOL_MARK} )); then
        \builtin typeset -g PROMPT_EOL_MARK="$_telexec_eol%B%S%#%s%b"
      elif [[ $PROMPT_EOL_MARK != "$_telexec_eol"* ]]; then
        \builtin typeset -g +x PROMPT_EOL_MARK="$_telexec_eol$PROMPT_EOL_MARK"
      fi
    fi
    if [[ ${(t)PS1-} != *readonly* ]]; then
      if [[ ! -o promptpercent ]]; then
        PS1=${${PS1-}//$_telexec_b/}
      elif [[ ${PS1-} != *"$_telexec_b" ]]; then
        PS1="${${PS1-}//$_telexec_b/}$_telexec_b"
      fi
      if [[ ${(t)PS1-} == *export* ]]; then
        \builtin typeset -g +x PS1
      fi
    fi
    if [[ ${precmd_functions[-1]-} != _telexec_precmd && ${(t)precmd_functions-} != *readonly* ]]; then
      precmd_functions=(${precmd_functions:#_telexec_precmd} _telexec_precmd)
    fi
    if [[ ${preexec_functions[-1]-} != _telexec_preexec && ${(t)preexec_functions-} != *readonly* ]]; then
      preexec_functions=(${preexec_functions:#_telexec_preexec} _telexec_preexec)
    fi
    \builtin print -rn -u9 -- "@ESC@]133;A;p=$$;k=@NONCE@@BEL@"
  } 9>&2 2>/dev/null
}

# Whatever the account has made of the hooks by now, the first prompt is told.
_telexec_late() {
  if (( _telexec_fresh )); then
    _telexec_precmd
  fi
}

_telexec_preexec() {
  {
    \builtin setopt localoptions no_warn_create_global no_xtrace no_allexport no_multibyte
    \builtin local line="${1:-$3}"
    line=${line//\%/%25}
    line=${line//;/%3B}
    line=${line//$'\n'/%0A}
    line=${line//$'\t'/%09}
    line=${line//$'\e'/%1B}
    line=${line//[[:cntrl:]]/%1A}
    if (( ${#line} > 6000 )); then
      line=
    fi
    if [[ ${precmd_functions[(r)_telexec_precmd]-} != _telexec_precmd && ${(t)precmd_functions-} != *readonly* ]]; then
      precmd_functions+=(_telexec_precmd)
    fi
    \builtin print -rn -u9 -- "@ESC@]133;C;line=$line;p=$$;k=@NONCE@@BEL@"
  } 9>&2 2>/dev/null
}

\builtin typeset -ga precmd_functions preexec_functions
precmd_functions=(${precmd_functions:#_telexec_precmd} _telexec_precmd)
preexec_functions=(${preexec_functions:#_telexec_preexec} _telexec_preexec)
if \builtin zmodload -F zsh/sched b:sched 2>/dev/null; then
  \builtin sched +0 _telexec_late
fi
if (( ${+_telexec_allexport} )); then
  \builtin unset _telexec_allexport
  \builtin setopt allexport
fi
