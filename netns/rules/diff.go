package rules

import (
	"slices"
	"strings"
)

// Equal reports whether have, parsed from the kernel, is what want says: the
// same chains with the same rules, and each jump exactly once and where it may
// be, in a table that the kernel asks. Rules of others that lead to our chains don't count.
func Equal(want, have Document) bool {
	return !slices.ContainsFunc(tableNames, func(name string) bool {
		w, h := want.Table(name), have.Table(name)
		return Diff(w, h) != "" || h.Dormant && w.Used()
	})
}

var tableNames = []string{"raw", "filter", "nat"}

// Diff is the document that turns have into want in one commit, for
// iptables-restore --noflush; empty if they are equal. It names only the chains
// that differ: naming a chain empties it first, inside the commit. A chain that
// is no longer wanted is emptied and deleted, unless a rule of somebody else
// leads to it: the deletion would fail the whole commit, so it stays, empty.
// Chains of others are changed rule by rule, which leaves the rest of them alone.
func Diff(want, have Table) string {
	var declare, fill, remove, leave, enter strings.Builder
	for _, c := range want.Chains {
		if old, ok := have.Chain(c.Name); ok && slices.Equal(old.Rules, c.Rules) {
			continue
		}
		declare.WriteString(":" + c.Name + " - [0:0]\n")
		c.write(&fill)
	}
	for _, c := range have.surplus(want) {
		declare.WriteString(":" + c.Name + " - [0:0]\n")
		if !have.pinned(c.Name) {
			remove.WriteString("-X " + c.Name + "\n")
		}
	}
	missing, extra := JumpDiff(want, have)
	for _, j := range extra {
		leave.WriteString("-D " + j.Chain + " " + j.Rule + "\n")
	}
	for _, j := range missing {
		if j.First {
			enter.WriteString("-I " + j.Chain + " 1 " + j.Rule + "\n")
		} else {
			enter.WriteString("-A " + j.Chain + " " + j.Rule + "\n")
		}
	}
	text := declare.String() + leave.String() + fill.String() + remove.String() + enter.String()
	if text == "" {
		return ""
	}
	return "*" + want.Name + "\n" + text + "COMMIT\n"
}

// surplus lists the chains of t that want lacks, without the empty ones that a
// rule of somebody else keeps from being deleted.
func (t Table) surplus(want Table) []Chain {
	var out []Chain
	for _, c := range t.Chains {
		if _, wanted := want.Chain(c.Name); !wanted && (len(c.Rules) > 0 || !t.pinned(c.Name)) {
			out = append(out, c)
		}
	}
	return out
}

// pinned reports whether a rule of somebody else leads to the chain.
func (t Table) pinned(chain string) bool {
	return slices.ContainsFunc(t.Jumps, func(j Jump) bool { return !j.ours() && target(j.Rule) == chain })
}

// ours tells dunnage's jumps by their comment, and by where they lead: anybody
// can write the comment.
func (j Jump) ours() bool {
	return strings.Contains(j.Rule, `--comment "dunnage: `) && strings.HasPrefix(target(j.Rule), Prefix)
}

// JumpDiff lists the jumps to be made and those to be deleted: what have lacks
// and what it has too much, which are second copies and jumps of ours that want
// doesn't know (another pool's). A jump that is to be elsewhere is in both.
func JumpDiff(want, have Table) (missing, extra []Jump) {
	for _, j := range have.Jumps {
		if j.ours() && len(want.copies(j)) == 0 {
			extra = append(extra, j)
		}
	}
	for _, j := range want.Jumps {
		switch all := have.copies(j); {
		case len(all) == 0:
			missing = append(missing, j)
		case j.displaced(all):
			missing = append(missing, j)
			extra = append(extra, all...)
		default:
			extra = append(extra, all[1:]...)
		}
	}
	return missing, extra
}

// displaced reports whether the jump has to be made anew to be where it
// belongs. Of several copies, "-D" deletes the first one, and the next may
// stand behind rules of others.
func (j Jump) displaced(copies []Jump) bool {
	first, last := copies[0], copies[len(copies)-1]
	return j.Leads && first.Behind != "" || j.First && first.Behind == "" && last.Behind != ""
}

// copies lists the rules of t that are the jump.
func (t Table) copies(j Jump) []Jump {
	var out []Jump
	for _, o := range t.Jumps {
		if o.same(j) {
			out = append(out, o)
		}
	}
	return out
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
