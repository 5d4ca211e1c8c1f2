package netns

import (
	"strings"

	"dunnage/netns/rules"
	"dunnage/spec"
)

// Compare says which rules Apply(to) would add and remove after Apply(from), in
// both families. It renders both and asks the kernel nothing.
func (n *Network) Compare(from, to spec.Routing) (spec.RuleDiff, error) {
	before4, before6, err := rules.Render(from, n.rules())
	if err != nil {
		return spec.RuleDiff{}, err
	}
	after4, after6, err := rules.Render(to, n.rules())
	if err != nil {
		return spec.RuleDiff{}, err
	}
	written := rules.Count(after4, before4)
	written.Add(rules.Count(after6, before6))
	d := spec.RuleDiff{RuleChange: written.Rules}
	for _, of := range []struct{ before, after rules.Document }{{before4, after4}, {before6, after6}} {
		d.Lines = append(d.Lines, beyond("-", of.before, of.after)...)
		d.Lines = append(d.Lines, beyond("+", of.after, of.before)...)
	}
	return d, nil
}

// beyond lists the rules of a that b lacks, as "-t nat -A CHAIN ...".
func beyond(sign string, a, b rules.Document) []string {
	left := map[string]int{}
	for _, r := range ruleLines(b) {
		left[r]++
	}
	var out []string
	for _, r := range ruleLines(a) {
		if left[r]--; left[r] < 0 {
			out = append(out, sign+" "+r)
		}
	}
	return out
}

func ruleLines(d rules.Document) []string {
	var out []string
	table := ""
	for line := range strings.Lines(d.String()) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "*"):
			table = line[1:]
		case strings.HasPrefix(line, "-A "):
			out = append(out, "-t "+table+" "+line)
		}
	}
	return out
}
