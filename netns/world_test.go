package netns

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"dunnage/internal/testenv"
	"dunnage/netns/rules"
	"dunnage/spec"
)

// world is a host with dunnage's network on it and a LAN around it.
type world struct {
	testing.TB
	*testenv.LAN
	net *Network
	ctx context.Context
}

var (
	pool4 = netip.MustParsePrefix("10.213.0.0/16")
	pool6 = netip.MustParsePrefix("fd00:d::/48")
)

func newWorld(tb testing.TB, backend Backend) *world {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	tb.Cleanup(cancel)
	n, err := New(Config{RunDir: testenv.HostRunDir, Pool: pool4, Pool6: pool6, Iptables: backend})
	if err != nil {
		tb.Fatal(err)
	}
	return &world{TB: tb, LAN: testenv.NewLAN(tb), net: n, ctx: ctx}
}

// newPublished is a world with replica a, 10 of network 1, at port 8080 of the host.
func newPublished(tb testing.TB) *world {
	tb.Helper()
	w := newWorld(tb, NFT)
	one := network(1, false)
	a := w.start("a", member(one, 10))
	w.apply(spec.Routing{Networks: []spec.NetworkAddressing{one}, Published: published(8080, 80, a.backend(0))})
	return w
}

// network is the i-th network (1 and up) of the pools.
func network(i int, internal bool) spec.NetworkAddressing {
	return spec.NetworkAddressing{
		ID:       fmt.Sprintf("web_net%d", i),
		Subnet:   netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 213, byte(i), 0}), 24),
		Subnet6:  netip.PrefixFrom(addr6(i, 0), 64),
		Internal: internal,
	}
}

func addr4(net, host int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 213, byte(net), byte(host)})
}

func addr6(net, host int) netip.Addr {
	a := pool6.Addr().As16()
	a[7], a[15] = byte(net), byte(host)
	return netip.AddrFrom16(a)
}

// member is the address of a host number in networks.
func member(net spec.NetworkAddressing, host int) spec.EndpointAddress {
	i := int(net.Subnet.Addr().As4()[2])
	return spec.EndpointAddress{
		Network: net.ID, Subnet: net.Subnet, Subnet6: net.Subnet6, Internal: net.Internal,
		Addr: addr4(i, host), Addr6: addr6(i, host),
	}
}

// replica is an attached replica that answers on port 80.
type replica struct {
	*testenv.NS
	id    string
	addrs []spec.EndpointAddress
}

func (r replica) backend(i int) spec.Backend {
	return spec.Backend{Replica: r.id, Addr: r.addrs[i].Addr, Addr6: r.addrs[i].Addr6}
}

func (w *world) attach(id string, addrs ...spec.EndpointAddress) replica {
	w.Helper()
	if err := w.net.Attach(w.ctx, spec.Endpoint{Replica: id, Hostname: id, Addresses: addrs}); err != nil {
		w.Fatal(err)
	}
	return replica{testenv.OpenNS(w, w.net.Namespace(id)), id, addrs}
}

// start attaches a replica and a server in it.
func (w *world) start(id string, addrs ...spec.EndpointAddress) replica {
	w.Helper()
	r := w.attach(id, addrs...)
	testenv.Serve(w, r.NS, id, 80)
	return r
}

func (w *world) apply(r spec.Routing) {
	w.Helper()
	if err := w.net.Apply(w.ctx, r); err != nil {
		w.Fatal(err)
	}
}

// published publishes host port -> target on every address, TCP and UDP.
func published(port, target uint16, backends ...spec.Backend) []spec.PublishedRoute {
	var all []spec.PublishedRoute
	for _, p := range []spec.Protocol{spec.TCP, spec.UDP} {
		all = append(all, spec.PublishedRoute{Project: "web", Service: "app", Port: port, Target: target, Protocol: p, Backends: backends})
	}
	return all
}

func gateway(v6 bool) netip.Addr {
	if v6 {
		return rules.Reserved(pool6).Gateway
	}
	return rules.Reserved(pool4).Gateway
}

// eachTransport runs f for TCP and UDP.
func eachTransport(f func(network string)) {
	for _, n := range []string{"tcp", "udp"} {
		f(n)
	}
}

// wantAnswer checks who answers and, if source is valid, as whom the server
// saw the client.
func (w *world) wantAnswer(what string, from *testenv.NS, network string, to netip.Addr, port uint16, name string, source netip.Addr) {
	w.Helper()
	a, err := testenv.Ask(from, network, netip.AddrPortFrom(to, port))
	switch {
	case err != nil:
		w.Errorf("%s, %s to %s port %d: %v", what, network, to, port, err)
	case name != "" && a.Name != name:
		w.Errorf("%s, %s to %s port %d: %s answered, want %s", what, network, to, port, a.Name, name)
	case source.IsValid() && a.Client.Addr() != source:
		w.Errorf("%s, %s to %s port %d: source %s, want %s", what, network, to, port, a.Client.Addr(), source)
	}
}

// wantNobody checks that nobody answers.
func (w *world) wantNobody(what string, from *testenv.NS, network string, to netip.Addr, port uint16) {
	w.Helper()
	if a, err := testenv.Ask(from, network, netip.AddrPortFrom(to, port)); err == nil {
		w.Errorf("%s, %s to %s port %d: %s answered, want nobody", what, network, to, port, a.Name)
	}
}
