package rules

import (
	"slices"
	"strings"
)

// Equal reports whether have, parsed from the kernel, is what want says: the
// same chains with the same rules, and each jump exactly once. Rules of others
// that lead to our chains don't count.
func Equal(want, have Document) bool {
	for _, name := range tableNames {
		w, h := want.Table(name), have.Table(name)
		if Diff(w, h) != "" {
			return false
		}
		missing, extra := JumpDiff(w, h)
		if len(missing)+len(extra) > 0 {
			return false
		}
	}
	return true
}

var tableNames = []string{"raw", "filter", "nat"}

// Diff is the document that turns the chains of have into those of want in one
// commit, for iptables-restore --noflush; empty if they are equal. It names
// only the chains that differ: naming a chain empties it first, inside the
// commit. A chain that is no longer wanted is emptied and deleted, unless a
// rule of somebody else leads to it: the deletion would fail the whole commit,
// so it stays, empty.
func Diff(want, have Table) string {
	var declare, fill, remove strings.Builder
	for _, c := range want.Chains {
		if old, ok := have.Chain(c.Name); ok && slices.Equal(old.Rules, c.Rules) {
			continue
		}
		declare.WriteString(":" + c.Name + " - [0:0]\n")
		c.write(&fill)
	}
	for _, c := range have.Chains {
		if _, ok := want.Chain(c.Name); ok {
			continue
		}
		pinned := have.pinned(want, c.Name)
		if pinned && len(c.Rules) == 0 {
			continue
		}
		declare.WriteString(":" + c.Name + " - [0:0]\n")
		if !pinned {
			remove.WriteString("-X " + c.Name + "\n")
		}
	}
	if declare.Len() == 0 {
		return ""
	}
	return "*" + want.Name + "\n" + declare.String() + fill.String() + remove.String() + "COMMIT\n"
}

// pinned reports whether a rule that isn't ours leads to the chain.
func (t Table) pinned(want Table, chain string) bool {
	return slices.ContainsFunc(t.Jumps, func(j Jump) bool { return target(j.Rule) == chain })
}

// JumpDiff lists want's jumps that have lacks, and the surplus copies of
// want's jumps in have.
func JumpDiff(want, have Table) (missing, extra []Jump) {
	for _, j := range want.Jumps {
		n := have.count(j)
		if n == 0 {
			missing = append(missing, j)
		}
		for ; n > 1; n-- {
			extra = append(extra, j)
		}
	}
	return missing, extra
}

func (t Table) count(j Jump) (n int) {
	for _, other := range t.Jumps {
		if other.Chain == j.Chain && other.Rule == j.Rule {
			n++
		}
	}
	return n
}
