package rules

import (
	"fmt"
	"slices"
	"strings"

	"dunnage/spec"
)

// Damage names how have, parsed from the kernel, differs from want: nothing if
// they are Equal. What is alike in a table is one line, and lines don't grow
// with the number of rules.
func Damage(want, have Document) []spec.Damage {
	var all []spec.Damage
	for _, name := range tableNames {
		w, h := want.Table(name), have.Table(name)
		add := func(kind spec.DamageKind, texts ...string) {
			for _, text := range texts {
				all = append(all, spec.Damage{Kind: kind, What: name + ": " + text})
			}
		}
		if h.Dormant && w.Used() {
			add(spec.DamageTable, "table dormant, so the kernel asks none of its rules")
		}
		add(spec.DamageChain, chainDamage(w, h)...)
		add(spec.DamageJump, jumpDamage(w, h)...)
	}
	return all
}

// namedChains is how many changed chains of a table are told one by one.
const namedChains = 3

func chainDamage(want, have Table) []string {
	var gone, emptied, surplus, changed []string
	for _, c := range want.Chains {
		old, found := have.Chain(c.Name)
		switch {
		case !found:
			gone = append(gone, c.Name)
		case slices.Equal(old.Rules, c.Rules):
		case len(old.Rules) == 0:
			emptied = append(emptied, c.Name)
		default:
			changed = append(changed, ruleDamage(c, old))
		}
	}
	for _, c := range have.surplus(want) {
		surplus = append(surplus, c.Name)
	}
	var all []string
	for _, group := range []struct {
		what   string
		chains []string
	}{{"gone", gone}, {"emptied", emptied}, {"left over", surplus}} {
		if len(group.chains) > 0 {
			all = append(all, counted(group.chains, "chain", "chains")+" "+group.what)
		}
	}
	if more := len(changed) - namedChains; more > 0 {
		changed = append(changed[:namedChains], fmt.Sprintf("%d more chains changed", more))
	}
	return append(all, changed...)
}

// ruleDamage says how a chain that has other rules differs.
func ruleDamage(want, have Chain) string {
	missing, extra := without(want.Rules, have.Rules), without(have.Rules, want.Rules)
	var parts []string
	if len(missing) > 0 {
		parts = append(parts, quoted(missing)+" missing")
	}
	if len(extra) > 0 {
		what := " added"
		if slices.Contains(want.Rules, extra[0]) {
			what = " doubled"
		}
		parts = append(parts, quoted(extra)+what)
	}
	if len(parts) == 0 {
		parts = append(parts, "rules moved")
	}
	return "chain " + want.Name + ": " + strings.Join(parts, ", ")
}

// without lists those of all that but lacks, each as often as it lacks it.
func without(all, but []string) []string {
	count := map[string]int{}
	for _, r := range but {
		count[r]++
	}
	var out []string
	for _, r := range all {
		if count[r]--; count[r] < 0 {
			out = append(out, r)
		}
	}
	return out
}

func jumpDamage(want, have Table) []string {
	var all, gone []string
	for _, j := range want.Jumps {
		switch copies := have.copies(j); {
		case len(copies) == 0:
			gone = append(gone, j.Chain)
		case len(copies) > 1:
			all = append(all, fmt.Sprintf("jump from %s doubled", j.Chain))
		case j.displaced(copies):
			all = append(all, fmt.Sprintf("jump from %s behind %s", j.Chain, short(copies[0].Behind)))
		}
	}
	if len(gone) > 0 {
		all = append(all, fmt.Sprintf("%s gone", counted(gone, "jump from", "jumps from")))
	}
	for _, j := range have.Jumps {
		if j.ours() && len(want.copies(j)) == 0 {
			all = append(all, fmt.Sprintf("jump from %s left over: %s", j.Chain, short(j.Rule)))
		}
	}
	return all
}

// namedThings is how many of a list are told by name.
const namedThings = 3

// counted is "chain A" or "chains A, B, C and 9 more".
func counted(names []string, one, many string) string {
	if len(names) > 1 {
		one = many
	}
	more := ""
	if n := len(names) - namedThings; n > 0 {
		names, more = names[:namedThings], fmt.Sprintf(" and %d more", n)
	}
	return one + " " + strings.Join(names, ", ") + more
}

// quoted is the first of the rules and how many more there are.
func quoted(rules []string) string {
	text := "rule " + short(rules[0])
	if len(rules) > 1 {
		text += fmt.Sprintf(" and %d more", len(rules)-1)
	}
	return text
}

// shortRule is how much of a rule fits into a line among others.
const shortRule = 120

func short(rule string) string {
	if len(rule) > shortRule {
		rule = rule[:shortRule] + "..."
	}
	return "'" + rule + "'" // rules have double quotes
}
