# fish completion for dunnage; load it with: dunnage completion fish | source
function __dunnage_complete
	set -l words (commandline -opc) (commandline -ct)
	$words[1] __complete -- $words[2..-1] 2>/dev/null
end
complete -c dunnage -f -a '(__dunnage_complete)'
complete -c dunnage -s f -l file -r -F
complete -c dunnage -l env-file -r -F
