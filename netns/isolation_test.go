package netns

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"dunnage/internal/testenv"
	"dunnage/netns/rules"
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

// TestAttach: what a replica finds in its namespace, and that Attach repairs
// what is missing and Detach leaves nothing.
func TestAttach(t *testing.T) {
	testenv.Host(t, func() {
		w := newWorld(t, Auto)
		testenv.Run(t, "ip", "link", "set", "lan0", "mtu", "1400")
		one, two := network(1, true), network(2, false)
		e := spec.Endpoint{Replica: "web-app-0a1b2c3d-1", Hostname: "app1", Addresses: []spec.EndpointAddress{member(one, 10), member(two, 10)}}
		check := func(when string) {
			t.Helper()
			if err := w.net.Attach(w.ctx, e); err != nil {
				t.Fatalf("%s: %v", when, err)
			}
			ns := testenv.OpenNS(t, w.net.Namespace(e.Replica))
			routes := ns.Run(t, "ip", "route") + ns.Run(t, "ip", "-6", "route")
			for _, want := range []string{
				"default via 169.254.1.1 dev eth0 src 10.213.2.10", "10.213.1.0/24 via 169.254.1.1 dev eth0 src 10.213.1.10", "10.213.2.0/24 via 169.254.1.1 dev eth0 src 10.213.2.10",
				"default via fe80::1 dev eth0 src fd00:d:0:2::a",
			} {
				if !strings.Contains(routes, want) {
					t.Errorf("%s: no route %q in\n%s", when, want, routes)
				}
			}
			if link := ns.Run(t, "ip", "link", "show", "eth0"); !strings.Contains(link, "mtu 1400") || !strings.Contains(link, "state UP") {
				t.Errorf("%s: link is %s", when, link)
			}
			w.wantAnswerFromHost(when, e.Addresses)
			if all, err := w.net.Attached(w.ctx); err != nil || !slices.Equal(all, []string{e.Replica}) {
				t.Errorf("%s: attached are %v (%v)", when, all, err)
			}
			wantSysctl(t, w.Host, "net/ipv4/conf/"+hostLink(e.Replica)+"/rp_filter", "1")
			wantSysctl(t, ns, "net/ipv4/ip_unprivileged_port_start", "0")
		}
		check("first")
		check("again")
		testenv.Run(t, "ip", "route", "del", "10.213.2.10")
		check("without a route")
		testenv.Run(t, "ip", "link", "set", hostLink(e.Replica), "down")
		check("with the link down")
		testenv.Run(t, "ip", "link", "del", hostLink(e.Replica))
		check("without the link")
		testenv.Run(t, "umount", "-l", w.net.Namespace(e.Replica))
		check("without the namespace")
		if err := os.RemoveAll(filepath.Join(testenv.HostRunDir, "replicas")); err != nil {
			t.Fatal(err)
		}
		check("without the files")

		testenv.Run(t, "umount", "-l", w.net.Namespace(e.Replica)) // the namespace vanishes first
		for range 2 {
			if err := w.net.Detach(w.ctx, e.Replica); err != nil {
				t.Fatal(err)
			}
		}
		if all, err := w.net.Attached(w.ctx); err != nil || len(all) != 0 {
			t.Errorf("attached after Detach: %v (%v)", all, err)
		}
		if links := testenv.Run(t, "ip", "link"); strings.Contains(links, rules.LinkPrefix) {
			t.Errorf("links after Detach:\n%s", links)
		}
	})
}

// wantAnswerFromHost pings each address.
func (w *world) wantAnswerFromHost(when string, addrs []spec.EndpointAddress) {
	w.Helper()
	r := replica{testenv.OpenNS(w, w.net.Namespace("web-app-0a1b2c3d-1")), "x", addrs}
	for _, a := range addrs {
		for _, to := range []netip.Addr{a.Addr, a.Addr6} {
			l, err := r.Listen("tcp", netip.AddrPortFrom(to, 0).String())
			if err != nil {
				w.Fatalf("%s: %v", when, err)
			}
			c, err := w.Host.Dial("tcp", l.Addr().String(), testenv.AskTimeout)
			if err != nil {
				w.Errorf("%s: the host doesn't reach %s: %v", when, to, err)
			} else {
				c.Close()
			}
			l.Close()
		}
	}
}

func wantSysctl(t *testing.T, ns *testenv.NS, name, want string) {
	t.Helper()
	var got string
	err := ns.Do(func() (err error) {
		got, err = sysctl{name: name}.read()
		return err
	})
	if err != nil || got != want {
		t.Errorf("%s is %q (%v), want %q", name, got, err, want)
	}
}

// TestNoIPv6: without an IPv6 pool a replica has no IPv6 address at all.
func TestNoIPv6(t *testing.T) {
	testenv.Host(t, func() {
		w := newWorld(t, Auto)
		w.net.cfg.Pool6 = netip.Prefix{}
		m := member(network(1, false), 10)
		m.Addr6, m.Subnet6 = netip.Addr{}, netip.Prefix{}
		r := w.start("app", m)
		if out := r.Run(t, "ip", "-6", "addr", "show", "dev", "eth0"); strings.TrimSpace(out) != "" {
			t.Errorf("IPv6 addresses: %s", out)
		}
		w.apply(spec.Routing{Networks: []spec.NetworkAddressing{{ID: "web_net1", Subnet: m.Subnet}}, Published: published(8080, 80, r.backend(0))})
		w.wantAnswer("IPv4 only", w.Client, "tcp", w.HostAddr, 8080, "app", w.ClientAddr)
		w.wantNobody("IPv4 only", w.Client, "tcp", w.HostAddr6, 8080)
		if text := save(t, w.net.tables.backend, "ip6tables"); strings.Contains(text, "DUNNAGE") {
			t.Errorf("IPv6 rules:\n%s", text)
		}
	})
}

// TestAbsent: without a replica a connection is refused at once, or held until
// one is there.
func TestAbsent(t *testing.T) {
	testenv.Host(t, func() {
		w := newWorld(t, Auto)
		one := network(1, false)
		app := w.start("app", member(one, 10))
		routing := func(absent spec.Absent, backends ...spec.Backend) spec.Routing {
			p := published(8080, 80, backends...)
			for i := range p {
				p[i].Absent = absent
			}
			return spec.Routing{Networks: []spec.NetworkAddressing{one}, Published: p}
		}
		for _, from := range []struct {
			ns *testenv.NS
			to netip.Addr
		}{{w.Client, w.HostAddr}, {w.Client, w.HostAddr6}, {w.Host, w.HostAddr}, {w.Host, netip.MustParseAddr("127.0.0.1")}, {w.Host, w.HostAddr6}} {
			to := netip.AddrPortFrom(from.to, 8080)
			w.apply(routing(spec.Refuse))
			start := time.Now()
			if _, err := from.ns.Dial("tcp", to.String(), 10*time.Second); err == nil || time.Since(start) > 5*time.Second {
				t.Errorf("refused connection to %s: %v after %v", to, err, time.Since(start))
			}
			w.apply(routing(spec.Hold))
			held := make(chan error, 1)
			go func() {
				c, err := from.ns.Dial("tcp", to.String(), 20*time.Second)
				if err == nil {
					_, err = testenv.AskOn(c)
					c.Close()
				}
				held <- err
			}()
			waitHeld(w, from.to.Is6())
			select {
			case err := <-held:
				t.Errorf("held connection to %s ended early: %v", to, err)
				continue
			default:
			}
			w.apply(routing(spec.Hold, app.backend(0)))
			if err := <-held; err != nil {
				t.Errorf("held connection to %s, once a replica is there: %v", to, err)
			}
		}
	})
}

// waitHeld waits until a packet has been held.
func waitHeld(w *world, v6 bool) {
	w.Helper()
	program := "iptables"
	if v6 {
		program = "ip6tables"
	}
	for {
		text := testenv.Run(w, program, "-xvnL")
		for line := range strings.Lines(text) {
			if f := strings.Fields(line); strings.Contains(line, "held until") && f[0] != "0" {
				testenv.Run(w, program, "-Z")
				return
			}
		}
		if w.ctx.Err() != nil {
			w.Fatalf("no packet was held:\n%s", text)
		}
	}
}

// TestAllow: only the listed clients and the host itself.
func TestAllow(t *testing.T) {
	testenv.Host(t, func() {
		w := newWorld(t, Auto)
		one := network(1, false)
		app := w.start("app", member(one, 10))
		p := published(8080, 80, app.backend(0))
		for i := range p {
			p[i].Allow = []netip.Prefix{netip.PrefixFrom(w.ClientAddr, 32), netip.PrefixFrom(w.ClientAddr6, 64)}
		}
		w.apply(spec.Routing{Networks: []spec.NetworkAddressing{one}, Published: p})
		eachTransport(func(network string) {
			w.wantAnswer("allowed", w.Client, network, w.HostAddr, 8080, "app", w.ClientAddr)
			w.wantAnswer("allowed", w.Client, network, w.HostAddr6, 8080, "app", w.ClientAddr6)
			w.wantNobody("not allowed", w.Attacker, network, w.HostAddr, 8080)
			w.wantNobody("not allowed", w.Attacker, network, w.HostAddr6, 8080)
			w.wantAnswer("the host", w.Host, network, w.HostAddr, 8080, "app", w.HostAddr)
			w.wantAnswer("the host by loopback", w.Host, network, netip.MustParseAddr("127.0.0.1"), 8080, "app", gateway(false))
		})
	})
}
