# bash completion for dunnage; load it with: . <(dunnage completion bash)
_dunnage() {
	local line word head=
	local -a words=()
	COMPREPLY=()
	for word in "${COMP_WORDS[@]:1:COMP_CWORD}"; do # state=ready comes as three words
		if [[ ${#words[@]} -gt 0 && $COMP_WORDBREAKS == *=* && ($word == = || ${words[-1]} == *=) ]]; then
			words[-1]+=$word
		else
			words+=("$word")
		fi
	done
	if [[ $COMP_WORDBREAKS == *=* && ${words[-1]} == *=* ]]; then
		head=${words[-1]%=*}= # readline replaces what stands after it
	fi
	while IFS= read -r line; do
		COMPREPLY+=("${line#"$head"}")
	done < <("${COMP_WORDS[0]}" __complete -- "${words[@]}" 2>/dev/null)
	if [[ ${#COMPREPLY[@]} -eq 0 ]]; then
		compopt -o default
	elif [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]]; then
		compopt -o nospace
	fi
	return 0
}
complete -F _dunnage dunnage
