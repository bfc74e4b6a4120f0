# bash completion of telexec: telexec itself knows what can follow.
_telexec() {
	local words=("${COMP_WORDS[@]:1:COMP_CWORD}")
	# bash splits at "=" and ":"; put such words together again, as telexec sees them.
	local cur="${COMP_WORDS[COMP_CWORD]}"
	mapfile -t COMPREPLY < <("${COMP_WORDS[0]}" __complete "${words[@]}" 2>/dev/null)
	local i
	for i in "${!COMPREPLY[@]}"; do # a name of several words is one
		if [[ "${COMPREPLY[i]}" == *" "* ]]; then printf -v "COMPREPLY[i]" %q "${COMPREPLY[i]}"; fi
	done
	if [[ ${#COMPREPLY[@]} -eq 0 && "$cur" != -* ]]; then
		compopt -o default
	fi
}
complete -F _telexec telexec
