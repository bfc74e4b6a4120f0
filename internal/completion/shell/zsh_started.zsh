fi
if [[ -r ${ZDOTDIR:-$HOME}/.zshenv ]]; then
  \builtin source -- "${ZDOTDIR:-$HOME}/.zshenv"
fi
