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
		pinned := have.pinned(c.Name)
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

// pinned reports whether a rule of somebody else leads to the chain.
func (t Table) pinned(chain string) bool {
	return slices.ContainsFunc(t.Jumps, func(j Jump) bool { return !j.ours() && target(j.Rule) == chain })
}

// ours tells dunnage's jumps by their comment.
func (j Jump) ours() bool { return strings.Contains(j.Rule, `--comment "dunnage: `) }

// JumpDiff lists want's jumps that have lacks, and what have has too much:
// second copies, and jumps of ours that want doesn't know (another pool's).
func JumpDiff(want, have Table) (missing, extra []Jump) {
	seen := map[Jump]bool{}
	for _, j := range have.Jumps {
		key := Jump{Chain: j.Chain, Rule: j.Rule}
		if j.ours() && (seen[key] || !want.has(j)) {
			extra = append(extra, j)
		}
		seen[key] = true
	}
	for _, j := range want.Jumps {
		if !have.has(j) {
			missing = append(missing, j)
		}
	}
	return missing, extra
}

func (t Table) has(j Jump) bool {
	return slices.ContainsFunc(t.Jumps, func(o Jump) bool { return o.Chain == j.Chain && o.Rule == j.Rule })
}

// Args splits a rule into the arguments of an iptables command.
func Args(rule string) []string {
	var args []string
	for rule = strings.TrimSpace(rule); rule != ""; rule = strings.TrimSpace(rule) {
		var arg string
		if rest, quoted := strings.CutPrefix(rule, `"`); quoted {
			arg, rule, _ = strings.Cut(rest, `"`)
		} else {
			arg, rule, _ = strings.Cut(rule, " ")
		}
		args = append(args, arg)
	}
	return args
}
