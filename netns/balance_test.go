package netns

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"
	"testing"

	"dunnage/internal/testenv"
	"dunnage/spec"
)

// TestShares: backends get their weight's share of real connections.
func TestSharesNFT(t *testing.T)    { testenv.Host(t, func() { testShares(t, NFT) }) }
func TestSharesLegacy(t *testing.T) { testenv.Host(t, func() { testShares(t, Legacy) }) }

func testShares(t *testing.T, backend Backend) {
	w := newWorld(t, backend)
	app := w.backends(3)
	weighted := slices.Clone(app[:2])
	weighted[1].Weight = 9
	routes := []spec.PublishedRoute{published(8080, 80, app...)[0], published(8081, 80, weighted...)[0]}
	w.apply(spec.Routing{Networks: []spec.NetworkAddressing{network(1, false)}, Published: routes})
	for _, host := range []netip.Addr{w.HostAddr, w.HostAddr6} {
		w.wantShares(netip.AddrPortFrom(host, 8080), map[string]float64{"app0": 1. / 3, "app1": 1. / 3, "app2": 1. / 3})
		w.wantShares(netip.AddrPortFrom(host, 8081), map[string]float64{"app0": 1. / 10, "app1": 9. / 10})
	}
}

// backends starts n replicas of a service.
func (w *world) backends(n int) []spec.Backend {
	w.Helper()
	var all []spec.Backend
	for i := range n {
		all = append(all, w.start(fmt.Sprint("app", i), member(network(1, false), 10+i)).backend(0))
	}
	return all
}

// wantShares makes 3,000 connections. The bounds are five standard deviations:
// chance breaks one once in 1.7 million times.
func (w *world) wantShares(to netip.AddrPort, want map[string]float64) {
	w.Helper()
	const asked = 3000
	count := map[string]int{}
	for range asked {
		count[w.whoAnswers(w.client(to.Addr()), "tcp", to)]++
	}
	w.Logf("%d connections to %s: %v", asked, to, count)
	for name, share := range want {
		mean, sigma := asked*share, math.Sqrt(asked*share*(1-share))
		if math.Abs(float64(count[name])-mean) > 5*sigma {
			w.Errorf("%s has %d of %d connections to %s, want %.0f +- %.0f", name, count[name], asked, to, mean, 5*sigma)
		}
	}
}

// TestSticky: a client stays with one replica, whatever it asks and how often,
// and over a swap that adds a replica most clients stay.
func TestStickyNFT(t *testing.T)    { testenv.Host(t, func() { testSticky(t, NFT) }) }
func TestStickyLegacy(t *testing.T) { testenv.Host(t, func() { testSticky(t, Legacy) }) }

func testSticky(t *testing.T, backend Backend) {
	w := newWorld(t, backend)
	app := w.backends(4)
	clients := w.clients(128)
	apply := func(n int) {
		all := append(published(8080, 80, app[:n]...), published(8081, 80, app[:n]...)...)
		for i := range all {
			all[i].Sticky = true
		}
		w.apply(spec.Routing{Networks: []spec.NetworkAddressing{network(1, false)}, Published: all})
	}
	apply(3)
	before := w.owners(clients)
	apply(4)
	after := w.owners(clients)
	stayed, moved := 0, map[string]int{}
	for client, name := range before {
		if after[client] == name {
			stayed++
		} else {
			moved[after[client]]++
		}
	}
	t.Logf("%s: of %d clients %d stayed, moved to %v", backend, len(clients), stayed, moved)
	// The rules are a pure function of the replicas' names and these clients
	// are half of all buckets: a quarter has to move, and this is no chance.
	if stayed*10 < len(clients)*7 || moved["app3"] == 0 {
		t.Errorf("of %d clients %d stayed, moved to %v", len(clients), stayed, moved)
	}
	apply(3)
	for client, name := range w.owners(clients) {
		if before[client] != name {
			t.Errorf("%s was with %s, and is with %s when the rules are the former ones", client, before[client], name)
		}
	}
}

// clients gives the client's namespace n more addresses of each family.
func (w *world) clients(n int) []netip.Addr {
	w.Helper()
	var all []netip.Addr
	a, a6 := w.ClientAddr, w.ClientAddr6
	for range n {
		a, a6 = a.Next(), a6.Next()
		w.Client.Run(w, "ip", "addr", "add", a.String()+"/24", "dev", "eth0")
		w.Client.Run(w, "ip", "addr", "add", a6.String()+"/64", "dev", "eth0", "nodad")
		all = append(all, a, a6)
	}
	return all
}

// owners asks for every client, by both ports, TCP and UDP, and wants one
// replica to answer all of it.
func (w *world) owners(clients []netip.Addr) map[netip.Addr]string {
	w.Helper()
	owner := map[netip.Addr]string{}
	for _, client := range clients {
		for _, port := range []uint16{8080, 8081, 8080} {
			eachTransport(func(network string) {
				name := w.whoAnswers(client, network, netip.AddrPortFrom(w.host(client), port))
				if owner[client] != "" && name != owner[client] {
					w.Errorf("%s got %s and %s", client, owner[client], name)
				}
				owner[client] = name
			})
		}
	}
	return owner
}

// client and host are the ends of the client's link in the family of like.
func (w *world) client(like netip.Addr) netip.Addr {
	if like.Is6() {
		return w.ClientAddr6
	}
	return w.ClientAddr
}

func (w *world) host(like netip.Addr) netip.Addr {
	if like.Is6() {
		return w.HostAddr6
	}
	return w.HostAddr
}

// whoAnswers asks from one of the addresses of the client's namespace, until
// there is an answer: thousands of questions are asked of a machine that may
// be busy, and here it only matters where they end.
func (w *world) whoAnswers(client netip.Addr, network string, to netip.AddrPort) string {
	w.Helper()
	for {
		a, err := w.askFrom(client, network, to)
		if err == nil {
			return a.Name
		}
		if w.ctx.Err() != nil {
			w.Fatalf("%s asks %s/%s: %v", client, to, network, err)
		}
	}
}

func (w *world) askFrom(client netip.Addr, network string, to netip.AddrPort) (a testenv.Answer, err error) {
	d := net.Dialer{Timeout: testenv.AskTimeout, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(client, 0))}
	if network == "udp" {
		d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(client, 0))
	}
	err = w.Client.Do(func() error {
		c, err := d.DialContext(w.ctx, network, to.String())
		if err != nil {
			return err
		}
		defer c.Close()
		a, err = testenv.AskOn(c)
		return err
	})
	return a, err
}
