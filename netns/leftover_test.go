package netns

import (
	"net/netip"
	"os"
	"slices"
	"testing"

	"dunnage/internal/testenv"
	"dunnage/spec"
)

// TestSweep: what an agent with another pool left goes, and nothing that is
// wanted or that no agent makes, though it has our protocol.
func TestSweep(t *testing.T) {
	testenv.Host(t, func() {
		w := newWorld(t, NFT)
		one := member(network(1, false), 10)
		w.attach("app", one)
		r := spec.Routing{
			Networks: []spec.NetworkAddressing{network(1, false)},
			Services: []spec.ServiceRoute{{Project: "web", Service: "app", Network: network(1, false).ID, Addr: addr4(1, 2), Addr6: addr6(1, 2)}},
		}
		w.apply(r)
		if err := w.net.PrepareVisits(w.ctx); err != nil {
			t.Fatal(err)
		}
		look := func() string {
			return testenv.Run(t, "sh", "-ec", "(ip -o addr; ip -4 route show table all; ip -6 route show table all) | sort")
		}
		sweep := func(want ...string) {
			t.Helper()
			removed, err := w.net.Sweep(w.ctx)
			if slices.Sort(removed); err != nil || !slices.Equal(removed, want) {
				t.Errorf("removed %q (%v), want %q", removed, err, want)
			}
		}
		sweep()
		was := look()

		own, link := w.net, hostLink("app")
		wrong, err := New(Config{RunDir: testenv.HostRunDir, Pool: netip.MustParsePrefix("10.99.0.0/16"), Pool6: netip.MustParsePrefix("fd00:99::/48"), Iptables: NFT})
		if err != nil {
			t.Fatal(err)
		}
		if err := wrong.PrepareVisits(w.ctx); err != nil {
			t.Fatal(err)
		}
		testenv.Run(t, "ip", "route", "add", "10.213.1.99", "dev", link, "src", "10.213.0.1", "proto", "213")
		foreign := []string{"203.0.113.0/24 via " + w.ClientAddr.String(), "203.0.114.7 dev lan0", "blackhole 203.0.115.0/24"}
		for _, f := range foreign {
			testenv.Run(t, "sh", "-ec", "ip route add "+f+" proto 213")
		}
		w.net = own
		sweep("10.213.1.99/32 dev "+link, "10.99.0.4/32 dev visit-dunnage", "fd00:99::4/128 dev visit-dunnage", "unreachable 10.99.0.0/16", "unreachable fd00:99::/48 dev lo")
		w.apply(r) // local routes are its
		sweep()

		// A record that is gone or can't be read is none of nothing wanted.
		record := w.net.addressesPath("app")
		b, err := os.ReadFile(record)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(record); err != nil {
			t.Fatal(err)
		}
		testenv.Run(t, "ip", "neigh", "add", "192.0.2.77", "lladdr", "02:00:00:00:00:09", "dev", "lan0") // news, so that it looks
		sweep()
		if err := os.WriteFile(record, b, 0o644); err != nil {
			t.Fatal(err)
		}

		left, err := w.net.Surplus()
		if err != nil || len(left) != len(foreign) {
			t.Fatalf("surplus: %+v, %v", left, err)
		}
		for _, s := range left {
			testenv.Run(t, "sh", "-ec", s.Delete)
		}
		if now := look(); now != was {
			t.Errorf("after the commands that it names there is\n%s\nthere was\n%s", now, was)
		}
	})
}
