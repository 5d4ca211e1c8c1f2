package walk

import (
	"iter"
	"slices"
	"strings"
)

// inChains goes over nft's listing: each line in a chain, trimmed, with that
// chain's name, "inet table chain".
func inChains(listing string) iter.Seq2[string, string] {
	return func(yield func(chain, line string) bool) {
		var table, chain string
		for line := range strings.Lines(listing) {
			line = strings.TrimSpace(line)
			f := strings.Fields(line)
			switch {
			case len(f) > 2 && f[0] == "table":
				table = f[1] + " " + f[2]
			case len(f) > 1 && f[0] == "chain":
				chain = f[1]
			default:
				if !yield(table+" "+chain, line) {
					return
				}
			}
		}
	}
}

// dormantIn finds the tables that are switched off, "inet table", which nft's JSON
// leaves out in some versions.
func dormantIn(listing string) map[string]bool {
	off := map[string]bool{}
	var table string
	for line := range strings.Lines(listing) {
		f := strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" \t\n,;", r) })
		switch {
		case len(f) > 2 && f[0] == "table":
			table = f[1] + " " + f[2]
		case strings.HasPrefix(line, "\tflags ") && slices.Contains(f, "dormant"): // a set's stand deeper
			off[table] = true
		}
	}
	return off
}

// linksOf finds the links of the chains that have any, which nft's JSON leaves out
// in some versions.
func linksOf(listing string) map[string][]string {
	links := map[string][]string{}
	for chain, line := range inChains(listing) {
		_, text, has := strings.Cut(strings.Replace(line, "hook egress", "hook ingress", 1), "hook ingress device")
		text, _, typed := strings.Cut(text, " priority ")
		if !has || !typed {
			continue
		}
		names := strings.FieldsFunc(strings.TrimPrefix(text, "s = "), func(r rune) bool { return strings.ContainsRune("{}\", \t", r) })
		links[chain] = append(links[chain], names...)
	}
	return links
}

// handles finds the words of each rule: "inet table chain 12".
func handles(listing string) map[string]string {
	all := map[string]string{}
	for chain, line := range inChains(listing) {
		if words, handle, has := strings.Cut(line, " # handle "); has {
			all[chain+" "+handle] = words + " # handle " + handle
		}
	}
	return all
}
