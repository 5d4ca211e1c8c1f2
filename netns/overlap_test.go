package netns

import (
	"net/netip"
	"strings"
	"testing"

	"dunnage/internal/testenv"
	"dunnage/spec"
)

// TestOverlaps: what of the host's is in a pool is found, and nothing of the agent's.
func TestOverlaps(t *testing.T) {
	testenv.Host(t, func() {
		w := newWorld(t, NFT)
		app := w.start("app", member(network(1, false), 10))
		if err := w.net.PrepareVisits(w.ctx); err != nil {
			t.Fatal(err)
		}
		w.apply(spec.Routing{Networks: []spec.NetworkAddressing{network(1, false)}, Published: published(8080, 80, app.backend(0))})
		w.hasAnswerSoon("a replica", w.Host, netip.AddrPortFrom(addr4(1, 10), 80))
		testenv.Run(t, "ip", "route", "add", "10.0.0.0/8", "via", w.ClientAddr.String()) // the pool is cut from it
		want := func(when, text string) {
			t.Helper()
			all, err := w.net.Overlaps()
			if err != nil || (text == "") != (len(all) == 0) || !strings.Contains(strings.Join(all, "; "), text) {
				t.Errorf("%s: %q (%v), want %q", when, all, err, text)
			}
			if told := strings.Join(w.problems(), "; "); !strings.Contains(told, text) || text == "" && told != "" {
				t.Errorf("%s: told is %q, want %q", when, told, text)
			}
		}
		want("an agent's own", "")
		for _, link := range []string{hostLink("app"), hostLink(visitor)} { // somebody else's rename doesn't make it somebody else's
			testenv.Run(t, "sh", "-ec", "ip link set "+link+" down; ip link set "+link+" name other0; ip link set other0 up; ip neigh replace 10.213.1.10 lladdr 02:00:00:00:00:01 nud permanent dev other0; ip route replace 10.213.1.10 dev other0")
			want(link+" renamed", "")
			testenv.Run(t, "sh", "-ec", "ip link set other0 down; ip link set other0 name "+link+"; ip link set "+link+" up")
		}
		for _, c := range []struct{ do, undo, want string }{
			{"ip addr add 10.213.9.9/24 dev lan1", "ip addr del 10.213.9.9/24 dev lan1", "pool 10.213.0.0/16 overlaps the host's address 10.213.9.9 of link lan1 and 1 more"},
			{"ip addr add 10.1.1.1/8 dev lan1", "ip addr del 10.1.1.1/8 dev lan1", "the network 10.0.0.0/8 of the host's link lan1"},
			{"ip route add 10.213.7.0/24 via 192.0.2.2", "ip route del 10.213.7.0/24", "the route to 10.213.7.0/24 by link lan0"},
			{"ip route add 10.213.7.0/24 dev lan1", "ip route del 10.213.7.0/24 dev lan1", "the route to 10.213.7.0/24 by link lan1"},
			{"ip route add 203.0.113.0/24 via 10.213.7.1 dev lan0 onlink", "ip route del 203.0.113.0/24", "the gateway 10.213.7.1 of the route to 203.0.113.0/24"},
			{"ip neigh add 10.213.7.2 lladdr 02:00:00:00:00:09 dev lan0", "ip neigh del 10.213.7.2 dev lan0", "the neighbour 10.213.7.2 of link lan0"},
			{"ip addr add fd00:d::77/128 dev lo", "ip addr del fd00:d::77/128 dev lo", "pool fd00:d::/48 overlaps the host's address fd00:d::77 of link lo"},
		} {
			testenv.Run(t, "sh", "-ec", c.do)
			want(c.do, c.want)
			testenv.Run(t, "sh", "-ec", c.undo)
			want(c.undo, "")
		}
	})
}
