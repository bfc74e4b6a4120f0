#compdef telexec
# zsh completion of telexec: telexec itself knows what can follow.
_telexec() {
	local -a candidates
	candidates=("${(@f)$("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
	candidates=(${candidates:#})
	if (( ${#candidates} )); then
		compadd -a candidates
	else
		_files
	fi
}
if [[ "$funcstack[1]" == _telexec ]]; then
	_telexec "$@"
else
	compdef _telexec telexec
fi
