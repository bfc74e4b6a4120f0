# The integration of bash. What it sets is _telexec_*, PS0, PS1 and PROMPT_COMMAND, nothing
# else, and it forks nothing. PS1 and PS0 only name variables that are not exported: a child
# that inherits an exported PS1 expands them to nothing.
case $- in *a*)
  _telexec_allexport=1
  \set +a
  ;;
esac
_telexec_v=$((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1]))
_telexec_c="@ESC@]133;C;p=$$;k=@NONCE@@BEL@"
_telexec_x="@ESC@]133;E;"
_telexec_d="@ESC@]133;D;"
_telexec_a=";a;p=$$;k=@NONCE@@BEL@"
_telexec_b="@ESC@]133;B;p=$$;k=@NONCE@@BEL@"
_telexec_pre='\[${_telexec_d:+$_telexec_d$?$_telexec_a}\]'
_telexec_post='\[${_telexec_b-}\]'
_telexec_ps0='${_telexec_c-}'
_telexec_ps1=
_telexec_pc=
_telexec_locked=
_telexec_ended=_telexec_ended
_telexec_hook=_telexec_prompt
# Under set -x these calls are traced to where nobody sees it.
_telexec_first='{
${_telexec_ended-}
} 9>&2 2>/dev/null
'
_telexec_last='{
${_telexec_hook-}
} 9>&2 2>/dev/null'

# What the prompt commands of the account print is no output of the command.
_telexec_ended() {
  \local status="$?"
  \builtin printf %s "$_telexec_x$status$_telexec_a" >&9
  [[ $- == *e* ]] || \return "$status"
}

# Sees to it that the marks are still where they belong; the last prompt command.
_telexec_prompt() {
  \local status="$?" unset= ps0= ps1=$_telexec_locked pc=
  if ((_telexec_v >= 404)); then
    if [[ $- == *u* ]]; then
      unset=u
      \set +u
    fi
    ps0=${PS0@a} ps1=${PS1@a} pc=${PROMPT_COMMAND@a}
    if [[ -n $unset ]]; then
      \set -u
    fi
  fi
  \shopt -s promptvars
  if [[ $ps1 == *r* ]]; then
    # The end is told here, and where the prompt ends is to be seen.
    if [[ ${PS1-} != *"$_telexec_pre"* ]]; then
      \builtin printf %s "$_telexec_d$status$_telexec_a" >&9
    fi
  elif [[ ${PS1-} != "$_telexec_ps1" || -z $_telexec_ps1 ]]; then
    _telexec_ps1=${PS1-}
    _telexec_ps1=${_telexec_ps1//"$_telexec_pre"/}
    _telexec_ps1=${_telexec_ps1//"$_telexec_post"/}
    _telexec_ps1=$_telexec_pre$_telexec_ps1$_telexec_post
    PS1=$_telexec_ps1
  fi
  if [[ $ps0 != *r* && ${PS0-} != *"$_telexec_ps0" ]]; then
    PS0=${PS0-}$_telexec_ps0
  fi
  if ((_telexec_v < 404)); then
    \return 0
  fi
  case $pc in
  *r*) ;;
  *x*) _telexec_scalar ;;
  *) if ((_telexec_v >= 501)); then _telexec_array; else _telexec_scalar; fi ;;
  esac
  if [[ $- == *a* ]]; then
    \export -n _telexec_ps1 _telexec_pc
  fi
  \return 0
}

# PROMPT_COMMAND as an array: who assigns to it as to a string changes its first element only.
_telexec_array() {
  \local -a at
  \local i n
  at=("${!PROMPT_COMMAND[@]}")
  n=${#at[@]}
  if ((n == 0)); then
    PROMPT_COMMAND[99]=$_telexec_last
    \return 0
  fi
  if [[ ${PROMPT_COMMAND[${at[n - 1]}]} != "$_telexec_last" ]]; then
    for i in "${at[@]}"; do
      if [[ ${PROMPT_COMMAND[i]} == "$_telexec_last" ]]; then
        \unset "PROMPT_COMMAND[$i]"
      fi
    done
    PROMPT_COMMAND[${at[n - 1]} + 99]=$_telexec_last
    # Those behind may still take the end away that is in PS1.
    \builtin printf %s "$_telexec_d$status$_telexec_a" >&9
  fi
  i=${at[0]}
  if [[ -n ${PROMPT_COMMAND[i]-} && ${PROMPT_COMMAND[i]} != "$_telexec_first"* && ${PROMPT_COMMAND[i]} != "$_telexec_last" ]]; then
    PROMPT_COMMAND[i]=$_telexec_first${PROMPT_COMMAND[i]}
  fi
  \return 0
}

_telexec_scalar() {
  if [[ -n $_telexec_pc && ${PROMPT_COMMAND-} == "$_telexec_pc" ]]; then
    \return 0
  fi
  _telexec_pc=${PROMPT_COMMAND-}
  _telexec_pc=${_telexec_pc//"$_telexec_first"/}
  _telexec_pc=${_telexec_pc//"
$_telexec_last"/}
  _telexec_pc=${_telexec_pc//"$_telexec_last"/}
  if [[ -n $_telexec_pc ]]; then
    _telexec_pc="$_telexec_first$_telexec_pc
"
  fi
  _telexec_pc=$_telexec_pc$_telexec_last
  PROMPT_COMMAND=$_telexec_pc
}

# What is read-only cannot be had, and an older bash does not tell that of a variable alone.
if ((_telexec_v < 404)); then
  case $(\readonly -p) in *" PS1="*) _telexec_locked=r ;; esac
fi
{
  _telexec_prompt
} 9>/dev/null
_telexec_starts=0
if ((_telexec_v < 404)); then
  # There is no PS0, and the attributes of a variable cannot be asked for.
  _telexec_scalar 2>/dev/null
elif [[ ${PS0-} == *"$_telexec_ps0" ]]; then
  _telexec_starts=1
fi
if [[ ${PS1-} == *"$_telexec_pre"* || ${PROMPT_COMMAND[*]-} == *"$_telexec_last"* ]]; then
  \builtin printf '@ESC@]133;P;pid=%s;shell=bash;level=%s;starts=%s;k=@NONCE@@BEL@' "$$" "${SHLVL-0}" "$_telexec_starts" >&2
fi
\unset _telexec_starts
if [[ -n ${_telexec_allexport-} ]]; then
  \unset _telexec_allexport
  \set -a
fi
