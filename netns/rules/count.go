package rules

import (
	"slices"

	"dunnage/spec"
)

// Count says what it takes to turn have into want: the rules of ours, jumps
// among them, that come and go, and whether the nat table takes a commit. A rule
// that only moves within its chain is neither.
func Count(want, have Document) spec.Written {
	var out spec.Written
	for _, name := range tableNames {
		w, h := want.Table(name), have.Table(name)
		changed := spec.RuleChange{}
		differs := len(w.Chains) != len(h.Chains)
		for _, c := range w.Chains {
			old, ok := h.Chain(c.Name)
			if ok && slices.Equal(old.Rules, c.Rules) {
				continue
			}
			differs = true
			changed.Added += beyond(c.Rules, old.Rules)
			changed.Removed += beyond(old.Rules, c.Rules)
		}
		for _, c := range h.Chains {
			if _, ok := w.Chain(c.Name); !ok {
				differs = true
				changed.Removed += len(c.Rules)
			}
		}
		missing, extra := JumpDiff(w, h)
		changed.Added += len(missing)
		changed.Removed += len(extra)
		if name == "nat" && differs {
			out.Commits = 1
		}
		out.Add(spec.Written{Rules: changed})
	}
	return out
}

// beyond is how many rules of a aren't in b; one that a has twice needs two.
func beyond(a, b []string) int {
	left := map[string]int{}
	for _, r := range b {
		left[r]++
	}
	n := 0
	for _, r := range a {
		if left[r]--; left[r] < 0 {
			n++
		}
	}
	return n
}
