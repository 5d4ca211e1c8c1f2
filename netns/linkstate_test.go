package netns

import (
	"net/netip"
	"strings"
	"testing"

	"dunnage/internal/testenv"
	"dunnage/spec"
)

// What no rule shows, and keeps clients' packets or answers back at their link, is told
// of as unseen, of the client concerned and of none known; and of nobody else.
func TestTraceLinkState(t *testing.T) { testenv.Host(t, func() { testTraceLinkState(t) }) }

func testTraceLinkState(t *testing.T) {
	w := newPublished(t)
	to := netip.AddrPortFrom(w.HostAddr, 8080)
	unseen := func(p spec.Packet) string {
		t.Helper()
		got := w.trace(p)
		if got.Fate != spec.FateArrives {
			t.Errorf("%s: %s", got.Fate, got.Dies)
		}
		return strings.Join(got.Unseen, "\n")
	}
	client := w.ClientAddr.String()
	for _, c := range []struct{ set, unset, want string }{
		{"ip link set lan0 mtu 70", "ip link set lan0 mtu 1500", "link lan0 has an MTU of 70, which is less than 576"},
		{"ip link set lan0 arp off", "ip link set lan0 arp on", "link lan0 has ARP off"},
		{"ip neigh replace " + client + " lladdr 02:00:00:00:00:09 dev lan0 nud permanent", "ip neigh del " + client + " dev lan0", "neighbour " + client + " at lan0 was set by hand (02:00:00:00:00:09)"},
		{"nft add table arp foo ; nft add chain arp foo in { type filter hook input priority 0; policy drop; }", "nft delete table arp foo", "nft: chain in of table arp foo may drop ARP"},
		{"nft add table arp foo ; nft add chain arp foo in { type filter hook input priority 0; } ; nft add rule arp foo in arp operation request drop", "nft delete table arp foo", "nft: chain in of table arp foo may drop ARP"},
		{"nft add table arp foo ; nft add chain arp foo in { type filter hook input priority 0; }", "nft delete table arp foo", ""},
	} {
		for set := range strings.SplitSeq(c.set, " ; ") {
			words := strings.Fields(set)
			testenv.Run(t, words[0], words[1:]...)
		}
		for _, p := range []spec.Packet{{Protocol: spec.TCP, To: to}, {Protocol: spec.TCP, To: to, Source: w.ClientAddr}} {
			if got := unseen(p); (c.want == "") != (got == "") || !strings.HasPrefix(got, c.want) || strings.Contains(got, "\n") {
				t.Errorf("%s, from %q: %q, want %q", c.set, p.Source, got, c.want)
			}
		}
		if got := unseen(spec.Packet{Protocol: spec.TCP, From: spec.FromHost, To: to}); got != "" {
			t.Errorf("%s, from the host: %q", c.set, got)
		}
		words := strings.Fields(c.unset)
		testenv.Run(t, words[0], words[1:]...)
	}
	testenv.Run(t, "ip", "neigh", "replace", "203.0.113.77", "lladdr", "02:00:00:00:00:09", "dev", "lan0", "nud", "permanent")
	if got := unseen(spec.Packet{Protocol: spec.TCP, To: to, Source: w.ClientAddr}); got != "" {
		t.Errorf("of another client: %q", got)
	}
}
