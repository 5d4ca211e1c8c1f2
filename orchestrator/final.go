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
	policy := strings.HasPrefix(s.Rule, "policy ")
	if tool == "nft" {
		show := fmt.Sprintf("`nft -a list chain %s %s` shows the chain; a drop there is final: ", table, chain)
		_, handle, known := strings.Cut(s.Rule, " # handle ")
		switch {
		case policy:
			return show + fmt.Sprintf("let it accept by default (`nft 'chain %s %s { policy accept; }'`), or add a rule that accepts these packets", table, chain)
		case known:
			return show + fmt.Sprintf("delete the rule (`nft delete rule %s %s handle %s`), or narrow it", table, chain, handle)
		}
		return show + "delete the rule, or narrow it"
	}
	show := fmt.Sprintf("`%s -t %s -vnL %s --line-numbers` shows the chain; a drop there is final: ", tool, table, chain)
	if policy {
		return show + fmt.Sprintf("let it accept by default (`%s -t %s -P %s ACCEPT`), or add a rule that accepts these packets", tool, table, chain)
	}
	text := show + fmt.Sprintf("delete the rule (`%s -t %s -D %s %d`), or narrow it", tool, table, chain, s.Number)
	ours := func(o spec.TraceStep) bool {
		return o.Owner == spec.OwnerDunnage && strings.HasPrefix(o.Where, tool+" ")
	}
	if table == "filter" && chain == "FORWARD" && slices.ContainsFunc(t.Steps, ours) {
		text += ", or move it behind the jump to DUNNAGE-FORWARD"
	}
	return text
}
