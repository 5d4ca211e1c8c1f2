package rules

import (
	"strings"
	"testing"
)

// TestJumpPlaces: each jump stands once, and where it belongs, whatever others
// have put around it; their rules aren't touched.
func TestJumpPlaces(t *testing.T) {
	const (
		nat     = `-m comment --comment "dunnage: published ports" -j DUNNAGE-PREROUTING`
		forward = `-m comment --comment "dunnage: traffic of replicas" -j DUNNAGE-FORWARD`
		source  = `-m comment --comment "dunnage: source addresses" -j DUNNAGE-POSTROUTING`
	)
	for name, c := range map[string]struct {
		table, chain, rule string
		kernel             string // the chain's rules, "ours" for the jump
		want               string // the document's lines; empty = nothing to do
	}{
		"in place":                       {"nat", "PREROUTING", nat, "ours", ""},
		"others behind":                  {"nat", "PREROUTING", nat, "ours,-p tcp -j DNAT", ""},
		"others in front":                {"nat", "PREROUTING", nat, "-p tcp -j DNAT,ours", "-D ours,-I ours"},
		"a jump of others to our chain":  {"nat", "PREROUTING", nat, "-p udp -j DUNNAGE-PREROUTING,ours", "-D ours,-I ours"},
		"missing":                        {"nat", "PREROUTING", nat, "-p tcp -j DNAT", "-I ours"},
		"doubled":                        {"nat", "PREROUTING", nat, "ours,ours", "-D ours"},
		"doubled around others":          {"nat", "PREROUTING", nat, "ours,-p tcp -j DNAT,ours", "-D ours,-D ours,-I ours"},
		"doubled behind others":          {"nat", "PREROUTING", nat, "-p tcp -j DNAT,ours,ours", "-D ours,-D ours,-I ours"},
		"a block of the owner in front":  {"filter", "FORWARD", forward, "-j DROP,ours", ""},
		"doubled around a block":         {"filter", "FORWARD", forward, "ours,-j DROP,ours", "-D ours,-D ours,-I ours"},
		"doubled behind a block":         {"filter", "FORWARD", forward, "-j DROP,ours,ours", "-D ours"},
		"forwarding, missing":            {"filter", "FORWARD", forward, "-j DROP", "-I ours"},
		"source addresses, others first": {"nat", "POSTROUTING", source, "-j MASQUERADE,ours", ""},
		"source addresses, missing":      {"nat", "POSTROUTING", source, "-j MASQUERADE", "-A ours"},
	} {
		t.Run(name, func(t *testing.T) {
			want := Table{Name: c.table, Jumps: []Jump{{
				Chain: c.chain, Rule: c.rule, First: c.chain != "POSTROUTING", Leads: c.chain == "PREROUTING",
			}}}
			text := "*" + c.table + "\n:" + c.chain + " ACCEPT [0:0]\n"
			for rule := range strings.SplitSeq(c.kernel, ",") {
				text += "-A " + c.chain + " " + strings.Replace(rule, "ours", c.rule, 1) + "\n"
			}
			expect := ""
			for line := range strings.SplitSeq(c.want, ",") {
				verb, _, _ := strings.Cut(line, " ")
				place := map[string]string{"-I": "1 "}[verb]
				expect += verb + " " + c.chain + " " + place + c.rule + "\n"
			}
			if expect = "*" + c.table + "\n" + expect + "COMMIT\n"; c.want == "" {
				expect = ""
			}
			have := Parse(text).Table(c.table)
			if got := Diff(want, have); got != expect {
				t.Errorf("the document is\n%s\nwant\n%s", got, expect)
			}
			if equal := Equal(Document{want}, Document{have}); equal != (c.want == "") {
				t.Errorf("equal: %v", equal)
			}
		})
	}
}
