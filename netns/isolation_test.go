package netns

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"

	"dunnage/internal/testenv"
	"dunnage/spec"
)

// TestIsolation: the same network can talk, two networks can't, an internal
// one reaches nothing else and is reached by nothing else. It runs with every
// combination of the settings that others change.
func TestIsolation(t *testing.T) {
	testenv.Host(t, func() {
		w := newWorld(t, Auto)
		one, two, closed := network(1, false), network(2, false), network(3, true)
		a, b := w.start("a", member(one, 10)), w.start("b", member(one, 11))
		c := w.start("c", member(two, 10))
		in, in2 := w.start("in", member(closed, 10)), w.start("in2", member(closed, 11))
		both := w.start("both", member(one, 12), member(closed, 12))
		testenv.Serve(t, w.Client, "outside", 81)
		testenv.Serve(t, w.Host, "host", 82)
		r := spec.Routing{
			Networks:  []spec.NetworkAddressing{one, two, closed},
			Services:  []spec.ServiceRoute{{Project: "web", Service: "in", Network: closed.ID, Addr: addr4(3, 2), Addr6: addr6(3, 2), Backends: []spec.Backend{in.backend(0)}}},
			Published: append(published(8080, 80, a.backend(0)), published(8081, 80, in.backend(0))...),
		}
		w.apply(r)
		for _, policy := range []string{"ACCEPT", "DROP"} {
			for _, bridge := range []string{"0", "1"} {
				testenv.Run(t, "iptables", "-P", "FORWARD", policy)
				testenv.Run(t, "ip6tables", "-P", "FORWARD", policy)
				setBridgeFilter(t, bridge)
				w.wantAnswer("same network", a.NS, "tcp", addr4(1, 11), 80, "b", addr4(1, 10))
				w.wantAnswer("same network", b.NS, "udp", addr6(1, 10), 80, "a", addr6(1, 11))
				w.wantNobody("two networks", a.NS, "tcp", addr4(2, 10), 80)
				w.wantNobody("two networks", c.NS, "udp", addr6(1, 10), 80)
				w.wantAnswer("outside", a.NS, "tcp", w.ClientAddr, 81, "outside", w.HostAddr)
				w.wantAnswer("outside", a.NS, "udp", w.ClientAddr6, 81, "outside", w.HostAddr6)
				w.wantAnswer("published", w.Client, "tcp", w.HostAddr, 8080, "a", w.ClientAddr)
				w.wantAnswer("published", w.Client, "udp", w.HostAddr6, 8080, "a", w.ClientAddr6)
			}
		}
		w.wantAnswer("inside an internal network", in2.NS, "tcp", addr4(3, 10), 80, "in", addr4(3, 11))
		w.wantAnswer("service of an internal network", in2.NS, "tcp", addr6(3, 2), 80, "in", addr6(3, 11))
		w.wantAnswer("member of both, to the internal one", both.NS, "tcp", addr4(3, 2), 80, "in", addr4(3, 12))
		w.wantAnswer("member of both, outside", both.NS, "tcp", w.ClientAddr, 81, "outside", w.HostAddr)
		w.wantAnswer("host to an internal replica (probe)", w.Host, "tcp", addr4(3, 10), 80, "in", gateway(false))
		w.wantNobody("internal to outside", in.NS, "tcp", w.ClientAddr, 81)
		w.wantNobody("internal to a published port", in.NS, "tcp", gateway(false), 8080)
		w.wantNobody("published port of an internal replica", w.Client, "tcp", w.HostAddr, 8081)
		w.wantAnswer("replica to a service of the host", a.NS, "tcp", gateway(false), 82, "host", addr4(1, 10))
		// A default route that the container gives itself doesn't open it.
		in.Run(t, "ip", "route", "add", "default", "via", gateway4.String(), "dev", "eth0", "onlink")
		w.wantNobody("internal to outside with a route of its own", in.NS, "tcp", w.ClientAddr, 81)
		w.wantNobody("published port of an internal replica that can answer", w.Client, "tcp", w.HostAddr, 8081)
		w.wantNobody("internal to another network", in.NS, "tcp", addr4(1, 10), 80)
	})
}

func setBridgeFilter(t *testing.T, value string) {
	t.Helper()
	for _, name := range []string{"bridge-nf-call-iptables", "bridge-nf-call-ip6tables"} {
		path := "/proc/sys/net/bridge/" + name
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			return // no bridge module in this kernel: there is nothing that could interfere
		}
		if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestForgery: addresses of the pool or of loopback that come from the wrong
// side get no answer.
func TestForgery(t *testing.T) {
	testenv.Host(t, func() {
		w := newWorld(t, Auto)
		one := network(1, false)
		a, b := w.start("a", member(one, 10)), w.start("b", member(one, 11))
		local := published(8080, 80, a.backend(0))
		for i := range local {
			local[i].HostIP = netip.MustParseAddr("127.0.0.1")
		}
		w.apply(spec.Routing{Networks: []spec.NetworkAddressing{one}, Published: local})
		w.wantAnswer("published on loopback", w.Host, "tcp", netip.MustParseAddr("127.0.0.1"), 8080, "a", gateway(false))
		w.wantNobody("published on loopback, from LAN", w.Client, "tcp", w.HostAddr, 8080)

		// moby#45610: the neighbour routes 127.0.0.0/8 to us.
		// Without route_localnet it would drop the answers itself.
		w.Attacker.Run(t, "sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1")
		w.Attacker.Run(t, "ip", "addr", "del", "127.0.0.1/8", "dev", "lo")
		w.Attacker.Run(t, "ip", "route", "add", "127.0.0.1/32", "via", w.AttackerHostAddr.String())
		w.wantNobody("published on loopback, routed to", w.Attacker, "tcp", netip.MustParseAddr("127.0.0.1"), 8080)
		testenv.Serve(t, w.Host, "host", 82)
		b.Run(t, "sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1")
		b.Run(t, "ip", "addr", "del", "127.0.0.1/8", "dev", "lo")
		b.Run(t, "ip", "route", "add", "127.0.0.1/32", "via", gateway4.String(), "dev", "eth0", "onlink", "src", addr4(1, 11).String())
		w.wantNobody("the host's loopback, from a replica", b.NS, "tcp", netip.MustParseAddr("127.0.0.1"), 82)

		// A replica with its neighbour's address: the packets must not arrive,
		// even if the owner of the host loosened the check for "all".
		testenv.Run(t, "sysctl", "-qw", "net.ipv4.conf.all.rp_filter=2")
		for _, forged := range []string{addr4(1, 99).String() + "/32", addr6(1, 99).String() + "/128"} {
			b.Run(t, "ip", "addr", "add", forged, "dev", "eth0")
		}
		wantForgeryDropped(w, b.NS, "udp", netip.AddrPortFrom(addr4(1, 99), 0), netip.AddrPortFrom(addr4(1, 10), 80))
		wantForgeryDropped(w, b.NS, "udp", netip.AddrPortFrom(addr6(1, 99), 0), netip.AddrPortFrom(addr6(1, 10), 80))
		// A LAN neighbour with a replica's address.
		w.Attacker.Run(t, "ip", "addr", "add", addr4(1, 98).String()+"/32", "dev", "eth0")
		wantForgeryDropped(w, w.Attacker, "udp", netip.AddrPortFrom(addr4(1, 98), 0), netip.AddrPortFrom(addr4(1, 10), 80))
	})
}

// wantForgeryDropped sends from a forged address and looks at the raw table:
// exactly this packet must have met a dropping rule.
func wantForgeryDropped(w *world, ns *testenv.NS, network string, from, to netip.AddrPort) {
	w.Helper()
	before := rawDrops(w, from.Addr().Is6())
	err := ns.Do(func() error {
		d := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(from)}
		c, err := d.Dial(network, to.String())
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("?"))
		return err
	})
	if err != nil {
		w.Fatalf("send from %s: %v", from, err)
	}
	if after := rawDrops(w, from.Addr().Is6()); after != before+1 {
		w.Errorf("from %s to %s: %d packets dropped, want 1", from, to, after-before)
	}
}

// rawDrops counts the packets that DUNNAGE-RAW dropped.
func rawDrops(w *world, v6 bool) (n int) {
	program := "iptables"
	if v6 {
		program = "ip6tables"
	}
	for line := range strings.Lines(testenv.Run(w, program, "-t", "raw", "-xvnL", "DUNNAGE-RAW")) {
		if f := strings.Fields(line); len(f) > 3 && f[2] == "DROP" {
			count, err := strconv.Atoi(f[0])
			if err != nil {
				w.Fatal(err)
			}
			n += count
		}
	}
	return n
}
