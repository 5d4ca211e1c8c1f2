package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dunnage/internal/testenv"
	"dunnage/netns/rules"
	"dunnage/spec"
)

func TestVisitorNFT(t *testing.T)    { testenv.Host(t, func() { testVisitor(t, NFT) }) }
func TestVisitorLegacy(t *testing.T) { testenv.Host(t, func() { testVisitor(t, Legacy) }) }

func testVisitor(t *testing.T, backend Backend) {
	w := newWorld(t, backend)
	one := network(1, false)
	app := w.start("app", member(one, 10))
	closed := w.start("closed", member(one, 11))
	r := spec.Routing{
		Networks:  []spec.NetworkAddressing{one},
		Services:  []spec.ServiceRoute{{Project: "web", Service: "app", Network: one.ID, Addr: addr4(1, 2), Addr6: addr6(1, 2), Backends: []spec.Backend{app.backend(0)}}},
		Published: append(published(8080, 80, app.backend(0)), published(8081, 80, closed.backend(0))...),
	}
	for i := range r.Published { // clients of a network that nobody here has, and no other
		if r.Published[i].Port == 8081 {
			r.Published[i].Allow = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("2001:db8:9::/64")}
		}
	}
	w.apply(r)
	testenv.Serve(t, w.Client, "outside", 80)

	fronts, err := w.net.Fronts(w.ctx)
	if err != nil || !slices.Equal(fronts, []netip.Addr{w.HostAddr, w.HostAddr6}) {
		t.Fatalf("clients use %v (%v), want the addresses of the link with the default route", fronts, err)
	}
	for i, host := range fronts {
		v6 := host.Is6()
		me := w.net.visitorEndpoint().Addresses[0].Addr
		if v6 {
			me = w.net.visitorEndpoint().Addresses[0].Addr6
		}
		w.wantVisit("a published port", netip.AddrPortFrom(host, 8080), "app", me)
		w.wantVisit("a port with an allow list", netip.AddrPortFrom(host, 8081), "closed", me)
		w.wantVisit("a port at the gateway", netip.AddrPortFrom(gateway(v6), 8080), "app", me)
		w.wantNobody("a client that isn't on the list", w.Client, "tcp", host, 8081)
		w.wantNoVisit("a port that isn't published", netip.AddrPortFrom(host, 8082))
		w.wantNoVisit("a replica", netip.AddrPortFrom([]netip.Addr{addr4(1, 10), addr6(1, 10)}[i], 80))
		w.wantNoVisit("a service address", netip.AddrPortFrom([]netip.Addr{addr4(1, 2), addr6(1, 2)}[i], 80))
		other := netip.AddrPortFrom([]netip.Addr{w.ClientAddr, w.ClientAddr6}[i], 80)
		w.wantNoVisit("another machine", other)
		if _, err := w.visit(other); err == nil || !strings.Contains(err.Error(), "the host has no address "+other.Addr().String()) {
			t.Errorf("another machine: %v; want that the address isn't the host's", err)
		}
	}
	w.wantForgedDropped()

	// A drop in front of ours hits the visitor as it hits a client.
	ipt := "iptables-" + string(backend)
	for _, rule := range [][]string{
		{"-t", "filter", "FORWARD", "-p", "tcp", "--dport", "80"},
		{"-t", "raw", "PREROUTING", "-p", "tcp", "--dport", "8080"},
		{"-t", "mangle", "PREROUTING", "-p", "tcp", "--dport", "8080"},
	} {
		args := append(append([]string{rule[0], rule[1], "-I"}, rule[2:]...), "-j", "DROP")
		testenv.Run(t, ipt, args...)
		w.wantNoVisit(strings.Join(args, " "), netip.AddrPortFrom(w.HostAddr, 8080))
		args[2] = "-D"
		testenv.Run(t, ipt, args...)
	}

	w.wantMended(app)

	// The next agent takes it over; nobody takes it for a replica's.
	before := w.visitorLink()
	next, err := New(w.net.cfg)
	if err != nil {
		t.Fatal(err)
	}
	w.net = next
	w.wantVisit("after a restart", netip.AddrPortFrom(w.HostAddr, 8080), "app", netip.Addr{})
	if after := w.visitorLink(); after != before {
		t.Errorf("link %d after a restart, want %d", after, before)
	}
	some, whole, err := w.net.Attached(w.ctx)
	if want := []string{"app", "closed"}; err != nil || !slices.Equal(some, want) || !slices.Equal(whole, want) {
		t.Errorf("attached %v, whole %v (%v), want %v", some, whole, err, want)
	}

	for _, id := range []string{"app", "closed"} {
		if err := w.net.Detach(w.ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.net.Remove(w.ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(w.net.Namespace(visitor)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the visitor's namespace is still there: %v", err)
	}
	if links := testenv.Run(t, "ip", "-o", "link"); strings.Contains(links, rules.VisitorLink) {
		t.Errorf("the visitor's link is still there:\n%s", links)
	}
}

// wantMended damages the visitor in several ways; the next visit gets through.
func (w *world) wantMended(app replica) {
	w.Helper()
	inside := func(f func() error) {
		if err := testenv.OpenNS(w, w.net.Namespace(visitor)).Do(f); err != nil {
			w.Fatal(err)
		}
	}
	ip := func(args ...string) func() {
		return func() { testenv.Run(w, "ip", args...) }
	}
	for what, damage := range map[string]func(){
		"link deleted":        ip("link", "del", rules.VisitorLink),
		"link down":           ip("link", "set", rules.VisitorLink, "down"),
		"route deleted":       ip("route", "del", rules.Reserved(pool4).Visitor.String()),
		"neighbour deleted":   ip("neigh", "del", rules.Reserved(pool4).Visitor.String(), "dev", rules.VisitorLink),
		"namespace unmounted": func() { _ = unix.Unmount(w.net.Namespace(visitor), unix.MNT_DETACH) },
		"namespace removed": func() {
			_ = unix.Unmount(w.net.Namespace(visitor), unix.MNT_DETACH)
			_ = os.Remove(w.net.Namespace(visitor))
		},
		"address deleted inside": func() {
			inside(func() error { testenv.Run(w, "ip", "addr", "flush", "dev", insideName); return nil })
		},
		"default route deleted inside": func() {
			inside(func() error { testenv.Run(w, "ip", "route", "del", "default"); return nil })
		},
	} {
		w.net.visits.mended = time.Time{}
		damage()
		w.wantVisit(what, netip.AddrPortFrom(w.HostAddr, 8080), "app", netip.Addr{})
	}
	w.wantAnswer("after all of it", w.Client, "tcp", w.HostAddr, 8080, app.id, w.ClientAddr)
}

// wantForgedDropped shows that the visitor's address opens nothing to others.
func (w *world) wantForgedDropped() {
	w.Helper()
	me := rules.Reserved(pool4).Visitor
	w.Client.Run(w, "ip", "addr", "add", me.String()+"/32", "dev", "eth0")
	defer w.Client.Run(w, "ip", "addr", "del", me.String()+"/32", "dev", "eth0")
	before := w.packets()
	err := w.Client.Do(func() error {
		d := net.Dialer{Timeout: testenv.AskTimeout, LocalAddr: &net.TCPAddr{IP: me.AsSlice()}}
		c, err := d.DialContext(w.ctx, "tcp", netip.AddrPortFrom(w.HostAddr, 8081).String())
		if err == nil {
			_ = c.Close()
			return fmt.Errorf("%s connected", me)
		}
		return nil
	})
	if err != nil {
		w.Error(err)
	}
	if after := w.packets(); after != before {
		w.Errorf("a forged packet has come to the allow list: %s, before %s", after, before)
	}
}

// packets is what the counters say of the rule that lets the visitor in.
func (w *world) packets() string {
	w.Helper()
	var found []string
	for line := range strings.Lines(testenv.Run(w, w.net.tables.v4.iptables, "-t", "nat", "-xvnL")) {
		if strings.Contains(line, "from the visitor") {
			found = append(found, strings.Fields(line)[0])
		}
	}
	return strings.Join(found, " ")
}

func (w *world) visitorLink() int {
	w.Helper()
	l, err := net.InterfaceByName(rules.VisitorLink)
	if err != nil {
		w.Fatal(err)
	}
	return l.Index
}

func (w *world) visit(to netip.AddrPort) (testenv.Answer, error) {
	ctx, cancel := context.WithTimeout(w.ctx, testenv.AskTimeout)
	defer cancel()
	c, err := w.net.Dial(ctx, spec.FromOutside, to)
	if err != nil {
		return testenv.Answer{}, err
	}
	defer c.Close()
	return testenv.AskOn(c)
}

// wantVisit tries twice more, because the kernel may hold a new link's first
// packets back for a second.
func (w *world) wantVisit(what string, to netip.AddrPort, name string, source netip.Addr) {
	w.Helper()
	a, err := w.visit(to)
	for range 2 {
		if late := net.Error(nil); errors.As(err, &late) && late.Timeout() {
			a, err = w.visit(to)
		}
	}
	switch {
	case err != nil:
		w.Errorf("%s: visit to %s: %v", what, to, err)
	case a.Name != name, source.IsValid() && a.Client.Addr() != source:
		w.Errorf("%s: %s answered %s to %s, want %s to %s", what, to, a.Name, a.Client.Addr(), name, source)
	}
}

func (w *world) wantNoVisit(what string, to netip.AddrPort) {
	w.Helper()
	a, err := w.visit(to)
	if err == nil {
		w.Errorf("%s: %s answered %s", what, to, a.Name)
	}
	if errors.Is(err, spec.ErrUnavailable) {
		w.Errorf("%s: the visitor couldn't ask: %v", what, err)
	}
}
