package netns

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dunnage/internal/testenv"
	"dunnage/netns/rules"
	"dunnage/spec"
)

// udpClient keeps one source port.
func (w *world) udpClient(from *testenv.NS, to netip.Addr, port uint16) net.Conn {
	w.Helper()
	c, err := from.Dial("udp", netip.AddrPortFrom(to, port).String(), testenv.AskTimeout)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { c.Close() })
	return c
}

func (w *world) wantFrom(when string, c net.Conn, name string) {
	w.Helper()
	a, err := testenv.AskOn(c)
	if err != nil || a.Name != name {
		w.Errorf("%s: %s answers %s (%v), want %s", when, a.Name, c.LocalAddr(), err, name)
	}
}

// TestUDPSwap: a client that keeps sending from one port follows the rules,
// on the host's port, whatever the container's; other ports' clients and an
// agent's restart leave entries alone.
func TestUDPSwapNFT(t *testing.T)    { testenv.Host(t, func() { testUDPSwap(t, NFT) }) }
func TestUDPSwapLegacy(t *testing.T) { testenv.Host(t, func() { testUDPSwap(t, Legacy) }) }

func testUDPSwap(t *testing.T, backend Backend) {
	w := newWorld(t, backend)
	one := network(1, false)
	old, next, other := w.start("old", member(one, 10)), w.start("next", member(one, 11)), w.start("other", member(one, 12))
	routing := func(b ...spec.Backend) spec.Routing {
		return spec.Routing{
			Networks:  []spec.NetworkAddressing{one},
			Services:  []spec.ServiceRoute{{Project: "web", Service: "app", Network: one.ID, Addr: addr4(1, 2), Addr6: addr6(1, 2), Backends: b}},
			Published: append(published(5353, 80, b...), published(5354, 80, old.backend(0))...),
		}
	}
	w.apply(spec.Routing{Networks: []spec.NetworkAddressing{one}})
	early := w.udpClient(w.Client, w.HostAddr, 5353)
	if _, err := testenv.AskOn(early); err == nil {
		t.Error("somebody answers before the port is published")
	}
	w.apply(routing(old.backend(0)))
	w.wantFrom("sent before the port was published", early, "old")

	clients := []net.Conn{
		w.udpClient(w.Client, w.HostAddr, 5353), w.udpClient(w.Client, w.HostAddr6, 5353), w.udpClient(w.Host, netip.MustParseAddr("127.0.0.1"), 5353),
		w.udpClient(other.NS, addr4(1, 2), 80), w.udpClient(other.NS, addr6(1, 2), 80),
	}
	bystander := w.udpClient(w.Client, w.HostAddr, 5354)
	testenv.Serve(t, w.Host, "host", 5355)
	hosts := w.udpClient(w.Client, w.HostAddr, 5355)
	w.wantFrom("a service of the host", hosts, "host")
	for _, c := range clients {
		w.wantFrom("before the swap", c, "old")
	}
	w.wantFrom("another port, before", bystander, "old")

	restarted, err := New(w.net.cfg)
	if err != nil {
		t.Fatal(err)
	}
	w.net = restarted
	before := entries(t, "udp")
	w.apply(routing(old.backend(0)))
	if after := entries(t, "udp"); len(after) != len(before) {
		t.Errorf("a restarted agent left %d of %d entries:\n%s", len(after), len(before), strings.Join(after, "\n"))
	}

	w.apply(routing(next.backend(0)))
	for _, e := range entries(t, "udp") {
		if strings.Contains(e, "dport=5353") && strings.Contains(e, "src=10.213.1.10 ") {
			t.Errorf("left after the swap: %s", e)
		}
	}
	for _, port := range []string{"5354", "5355"} {
		if !strings.Contains(strings.Join(entries(t, "udp"), "\n"), " dport="+port) {
			t.Errorf("the entry of port %s, which didn't change, was deleted", port)
		}
	}
	for _, c := range clients {
		w.wantFrom("after the swap", c, "next")
	}
	w.wantFrom("another port, after", bystander, "old")

	// A restart that had not swept yet: committed, then killed.
	routes := routing(old.backend(0))
	if _, err := w.net.tables.v4.sync(w.ctx, mustRender(t, w, routes), w.net.rules()); err != nil {
		t.Fatal(err)
	}
	if w.net, err = New(w.net.cfg); err != nil {
		t.Fatal(err)
	}
	w.apply(routes)
	w.wantFrom("after a crash between commit and sweep", clients[0], "old")
}

// entries lists the conntrack entries of a protocol as conntrack(8) prints them.
func entries(t *testing.T, proto string) []string {
	t.Helper()
	var all []string
	for _, family := range []string{"ipv4", "ipv6"} {
		for line := range strings.Lines(testenv.Run(t, "conntrack", "-L", "-p", proto, "-f", family)) {
			if strings.HasPrefix(line, proto+" ") {
				all = append(all, strings.TrimSpace(line))
			}
		}
	}
	return all
}

// TestConnections: open connections and flows are counted, closed ones aren't,
// and Detach ends what is left with a reset.
func TestConnections(t *testing.T) {
	testenv.Host(t, func() {
		w := newWorld(t, Auto)
		one := network(1, false)
		app := w.start("app", member(one, 10))
		w.apply(spec.Routing{Networks: []spec.NetworkAddressing{one}, Published: published(8080, 80, app.backend(0))})
		addrs := []netip.Addr{addr4(1, 10), addr6(1, 10), addr4(1, 11)}
		w.wantConnections(addrs, 0, 0)
		var open []net.Conn
		for _, to := range []netip.Addr{w.HostAddr, w.HostAddr, w.HostAddr6} {
			c, err := w.Client.Dial("tcp", netip.AddrPortFrom(to, 8080).String(), testenv.AskTimeout)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := testenv.AskOn(c); err != nil {
				t.Fatal(err)
			}
			open = append(open, c)
		}
		w.wantAnswer("udp", w.Client, "udp", w.HostAddr, 8080, "app", w.ClientAddr)
		w.wantConnections(addrs, 3, 1)
		closeAndWait(t, open[0])
		w.wantConnections(addrs, 2, 1)

		// First out of the rules, then away: the order of every stop.
		w.apply(spec.Routing{Networks: []spec.NetworkAddressing{one}, Published: published(8080, 80)})
		w.wantConnections(addrs, 1, 1) // the UDP flow went with the rule
		if err := w.net.Detach(w.ctx, app.id); err != nil {
			t.Fatal(err)
		}
		w.wantConnections(addrs, 0, 0)
		// Nothing knows the connection any more: the host resets it.
		if err := open[1].SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		_, err := open[1].Write([]byte("anybody?"))
		if err == nil {
			_, err = open[1].Read(make([]byte, 1))
		}
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("a connection after Detach ends with %v, want a reset", err)
		}
	})
}

// closeAndWait closes our side and waits for the server's.
func closeAndWait(t *testing.T, c net.Conn) {
	t.Helper()
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, c); err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func (w *world) wantConnections(addrs []netip.Addr, v4, v6 int) {
	w.Helper()
	got, err := w.net.Connections(w.ctx, addrs)
	if err != nil || got[addrs[0]] != v4 || got[addrs[1]] != v6 || got[addrs[2]] != 0 {
		w.Errorf("connections are %v (%v), want %d by IPv4 and %d by IPv6", got, err, v4, v6)
	}
}

// TestInvalid: packets that conntrack doesn't understand (here: an answer far
// out of the window) are dropped, not passed on untranslated; a long transfer
// goes on (kubernetes#74839).
func TestInvalid(t *testing.T) {
	testenv.Host(t, func() {
		w := newWorld(t, Auto)
		one := network(1, false)
		app := w.start("app", member(one, 10))
		w.apply(spec.Routing{Networks: []spec.NetworkAddressing{one}, Published: published(8080, 80, app.backend(0))})
		c, err := w.Client.Dial("tcp", netip.AddrPortFrom(w.HostAddr, 8080).String(), testenv.AskTimeout)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		a, err := testenv.AskOn(c)
		if err != nil {
			t.Fatal(err)
		}
		// Sequence numbers from each quarter of the space: wherever the
		// connection is, two of them lie beyond its window. hping3 counts a
		// missing answer as failure.
		for _, seq := range []string{"1", "1073741825", "2147483649", "3221225473"} {
			app.Run(t, "sh", "-c", "hping3 -q -c 1 -A -M "+seq+" -L 1 -s 80 -k -p "+portText(a.Client)+" -d 4 "+a.Client.Addr().String()+" || true")
		}
		if drops := testenv.Run(t, "iptables", "-xvnL", "DUNNAGE-FROM"); !countedInvalid(drops) {
			t.Errorf("no packet was seen as invalid, so nothing was tried:\n%s", drops)
		}
		if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("still there\n")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 12)); err != nil {
			t.Errorf("the connection after an invalid packet: %v", err)
		}
	})
}

func portText(a netip.AddrPort) string {
	_, port, _ := strings.Cut(a.String(), ":")
	return port
}

func countedInvalid(list string) bool {
	for line := range strings.Lines(list) {
		if f := strings.Fields(line); strings.Contains(line, "INVALID") && f[0] != "0" {
			return true
		}
	}
	return false
}

func mustRender(t *testing.T, w *world, r spec.Routing) rules.Document {
	t.Helper()
	v4, _, err := rules.Render(r, w.net.rules())
	if err != nil {
		t.Fatal(err)
	}
	return v4
}

// TestDumpFilter: the kernel's filter by protocol leaves nothing out and
// hands out nothing else.
func TestDumpFilter(t *testing.T) {
	testenv.Host(t, func() {
		w := newWorld(t, Auto)
		app := w.start("app", member(network(1, false), 10))
		w.apply(spec.Routing{Networks: []spec.NetworkAddressing{network(1, false)}, Published: published(8080, 80, app.backend(0))})
		eachTransport(func(network string) {
			w.wantAnswer("open", w.Client, network, w.HostAddr, 8080, "app", w.ClientAddr)
			w.wantAnswer("open", w.Client, network, w.HostAddr6, 8080, "app", w.ClientAddr6)
		})
		for proto, want := range map[uint8]int{0: 4, unix.IPPROTO_TCP: 2, unix.IPPROTO_UDP: 2} { // of both families
			all, err := w.net.flows(context.Background(), proto)
			got := 0
			for _, e := range all {
				if e.dport == 8080 {
					got++
				} else if proto != 0 && e.proto != proto {
					t.Errorf("asked for protocol %d, got %+v", proto, e.flow)
				}
			}
			if err != nil || got != want {
				t.Errorf("protocol %d: %d entries of the port (%v), want %d", proto, got, err, want)
			}
		}
	})
}
