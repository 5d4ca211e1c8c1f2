package orchestrator

import (
	"testing"

	"dunnage/spec"
)

// The advice ends what the rule does: a drop is final wherever it stands.
func TestFinal(t *testing.T) {
	ours := []spec.TraceStep{{Where: "iptables-nft nat PREROUTING", Owner: spec.OwnerDunnage}}
	const show = " shows the chain; a drop there is final: "
	for _, c := range []struct{ where, rule, want string }{
		{"iptables-nft raw PREROUTING", "-p tcp -j DROP", "`iptables-nft -t raw -vnL PREROUTING --line-numbers`" + show + "delete the rule (`iptables-nft -t raw -D PREROUTING 3`), or narrow it"},
		{"iptables-nft filter FORWARD", "-p tcp -j DROP", "`iptables-nft -t filter -vnL FORWARD --line-numbers`" + show + "delete the rule (`iptables-nft -t filter -D FORWARD 3`), or narrow it, or move it behind the jump to DUNNAGE-FORWARD"},
		{"iptables-legacy filter FORWARD", "-p tcp -j DROP", "`iptables-legacy -t filter -vnL FORWARD --line-numbers`" + show + "delete the rule (`iptables-legacy -t filter -D FORWARD 3`), or narrow it"},
		{"iptables-legacy filter FORWARD", "policy DROP", "`iptables-legacy -t filter -vnL FORWARD --line-numbers`" + show + "let it accept by default (`iptables-legacy -t filter -P FORWARD ACCEPT`), or add a rule that accepts these packets"},
		{"nft inet guard pre", "tcp dport 8080 drop # handle 4", "`nft -a list chain inet guard pre`" + show + "delete the rule (`nft delete rule inet guard pre handle 4`), or narrow it"},
		{"nft inet guard pre", "policy DROP", "`nft -a list chain inet guard pre`" + show + "let it accept by default (`nft 'chain inet guard pre { policy accept; }'`), or add a rule that accepts these packets"},
	} {
		if got := final(spec.Trace{Steps: ours}, spec.TraceStep{Where: c.where, Number: 3, Rule: c.rule}); got != c.want {
			t.Errorf("%s %s:\n%s, want\n%s", c.where, c.rule, got, c.want)
		}
	}
}
