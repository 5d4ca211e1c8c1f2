package orchestrator

import (
	"fmt"
	"slices"
	"strings"

	"dunnage/spec"
)

// final says how to get rid of a rule of others that drops. To move it seldom
// helps: a drop is final in every chain, whatever others accept before or behind
// it. Only in FORWARD of the backend that dunnage uses do its own rules accept
// what comes to them first.
func final(t spec.Trace, s spec.TraceStep) string {
	tool, table, chain := place(s.Where)
	show, remove := chainOf(s)
	show += " shows the chain; a drop there is final: "
	switch {
	case strings.HasPrefix(s.Rule, "policy ") && tool == "nft":
		return show + fmt.Sprintf("let it accept by default (`nft 'chain %s %s { policy accept; }'`), or add a rule that accepts these packets", table, chain)
	case strings.HasPrefix(s.Rule, "policy "):
		return show + fmt.Sprintf("let it accept by default (`%s -t %s -P %s ACCEPT`), or add a rule that accepts these packets", tool, table, chain)
	}
	text := show + remove + ", or narrow it"
	ours := func(o spec.TraceStep) bool {
		return o.Owner == spec.OwnerDunnage && strings.HasPrefix(o.Where, tool+" ")
	}
	if tool != "nft" && table == "filter" && chain == "FORWARD" && slices.ContainsFunc(t.Steps, ours) {
		text += ", or move it behind the jump to DUNNAGE-FORWARD"
	}
	return text
}

// chainOf is the command that shows a rule's chain, and how to delete the rule.
func chainOf(s spec.TraceStep) (show, remove string) {
	tool, table, chain := place(s.Where)
	if tool != "nft" {
		return fmt.Sprintf("`%s -t %s -vnL %s --line-numbers`", tool, table, chain), fmt.Sprintf("delete the rule (`%s -t %s -D %s %d`)", tool, table, chain, s.Number)
	}
	show, remove = fmt.Sprintf("`nft -a list chain %s %s`", table, chain), "delete the rule"
	if _, handle, known := strings.Cut(s.Rule, " # handle "); known {
		remove += fmt.Sprintf(" (`nft delete rule %s %s handle %s`)", table, chain, handle)
	}
	return show, remove
}
