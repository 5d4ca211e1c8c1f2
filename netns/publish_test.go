package netns

import (
	"net/netip"
	"testing"

	"dunnage/internal/testenv"
	"dunnage/spec"
)

func TestPublishNFT(t *testing.T)    { testenv.Host(t, func() { testPublish(t, NFT) }) }
func TestPublishLegacy(t *testing.T) { testenv.Host(t, func() { testPublish(t, Legacy) }) }

func testPublish(t *testing.T, backend Backend) {
	w := newWorld(t, backend)
	one, two := network(1, false), network(2, false)
	app := w.start("app", member(one, 10))
	neighbour := w.start("neighbour", member(one, 11))
	foreign := w.start("foreign", member(two, 10))
	w.apply(spec.Routing{
		Networks:  []spec.NetworkAddressing{one, two},
		Services:  []spec.ServiceRoute{{Project: "web", Service: "app", Network: one.ID, Addr: addr4(1, 2), Addr6: addr6(1, 2), Backends: []spec.Backend{app.backend(0)}}},
		Published: published(8080, 80, app.backend(0)),
	})
	eachTransport(func(network string) {
		w.wantAnswer("host by loopback", w.Host, network, netip.MustParseAddr("127.0.0.1"), 8080, "app", gateway(false))
		w.wantNobody("host by ::1", w.Host, network, netip.IPv6Loopback(), 8080)
		for _, v6 := range []bool{false, true} {
			pick := func(a4, a6 netip.Addr) netip.Addr {
				if v6 {
					return a6
				}
				return a4
			}
			host := pick(w.HostAddr, w.HostAddr6)
			w.wantAnswer("LAN", w.Client, network, host, 8080, "app", pick(w.ClientAddr, w.ClientAddr6))
			w.wantAnswer("host by its address", w.Host, network, host, 8080, "app", host)
			w.wantAnswer("hairpin by host address", app.NS, network, host, 8080, "app", gateway(v6))
			w.wantAnswer("neighbour by host address", neighbour.NS, network, host, 8080, "app", pick(addr4(1, 11), addr6(1, 11)))
			w.wantAnswer("other network by host address", foreign.NS, network, host, 8080, "app", pick(addr4(2, 10), addr6(2, 10)))
			w.wantAnswer("other network by gateway", foreign.NS, network, gateway(v6), 8080, "app", netip.Addr{})
			service := pick(addr4(1, 2), addr6(1, 2))
			w.wantAnswer("service address from neighbour", neighbour.NS, network, service, 80, "app", pick(addr4(1, 11), addr6(1, 11)))
			w.wantAnswer("service address from itself", app.NS, network, service, 80, "app", gateway(v6))
			w.wantAnswer("service address from host", w.Host, network, service, 80, "app", gateway(v6))
			w.wantNobody("service address from other network", foreign.NS, network, service, 80)
			w.wantNobody("service address from LAN", w.Client, network, service, 80)
			replica := pick(addr4(1, 10), addr6(1, 10))
			w.wantAnswer("replica address from host", w.Host, network, replica, 80, "app", gateway(v6))
			w.wantNobody("replica address from LAN", w.Attacker, network, replica, 80)
			w.wantNobody("replica address from other network", foreign.NS, network, replica, 80)
		}
	})
}
