package netns

import (
	"net/netip"
	"strings"
	"testing"

	"dunnage/internal/testenv"
	"dunnage/spec"
)

// What is said of a packet holds where tables are dormant: nothing in them is
// asked, whoever made them, and those with rules are named.
func TestTraceDormant(t *testing.T) { testenv.Host(t, func() { testTraceDormant(t) }) }

func testTraceDormant(t *testing.T) {
	w := newPublished(t)
	to := netip.AddrPortFrom(w.HostAddr, 8080)
	testenv.Run(t, "nft", "add table inet mine; add chain inet mine in { type filter hook forward priority 0; policy drop; }; add set inet mine s { type ipv4_addr; flags interval; }")
	for _, c := range []struct {
		when, script string
		want         spec.Fate
		told         string // empty = nothing is switched off
	}{
		{"awake", "true", spec.FateDropped, ""},
		{"a native table dormant", "nft 'add table inet mine { flags dormant; }'", spec.FateArrives, "table mine is switched off"},
		{"nat dormant", "nft 'add table ip nat { flags dormant; }'", spec.FateArrives, "table nat is switched off"},
		{"filter of IPv6 dormant", "nft 'add table ip nat; add table ip6 filter { flags dormant; }'", spec.FateArrives, "table mine is switched off"},
	} {
		testenv.Run(t, "sh", "-ec", c.script)
		got := w.trace(spec.Packet{Protocol: spec.TCP, To: to})
		if got.Fate != c.want || strings.Contains(told(got), "switched off") != (c.told != "") || !strings.Contains(told(got), c.told) {
			t.Errorf("%s: %s\n%s", c.when, got.Fate, told(got))
		}
		if replica := len(got.Reach) > 0 && got.Reach[0].To.Addr() != w.HostAddr; replica != (c.want == spec.FateArrives && c.when != "nat dormant") {
			t.Errorf("%s: leads to %v\n%s", c.when, got.Reach, told(got))
		}
	}
}
