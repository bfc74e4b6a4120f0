# fish completion of telexec: telexec itself knows what can follow.
function __telexec_complete
	set -l words (commandline -opc) (commandline -ct)
	$words[1] __complete $words[2..-1] 2>/dev/null
end
complete -c telexec -a '(__telexec_complete)'
