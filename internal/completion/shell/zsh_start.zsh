# Stands in for the .zshenv of the account: zsh was started with ZDOTDIR set to where this
# file is. Everything else zsh reads by itself, from where it always does.
\builtin command rm -f -- "${(%):-%x}"
if (( ${+TELEXEC_ZDOTDIR} )); then
  \builtin export ZDOTDIR=$TELEXEC_ZDOTDIR
else
  \builtin unset ZDOTDIR
fi
\builtin unset TELEXEC_ZDOTDIR
if [[ -o interactive ]]; then
