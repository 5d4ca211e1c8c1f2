package netns

import (
	"fmt"
	"net/netip"
	"testing"

	"dunnage/internal/testenv"
	"dunnage/spec"
)

// TestMatrix: {single, range, translated range, address-bound} x {loopback,
// host address, LAN} x {tcp, udp} x {IPv4, IPv6}, all published at once.
func TestMatrixNFT(t *testing.T)    { testenv.Host(t, func() { testMatrix(t, NFT) }) }
func TestMatrixLegacy(t *testing.T) { testenv.Host(t, func() { testMatrix(t, Legacy) }) }

func testMatrix(t *testing.T, backend Backend) {
	w := newWorld(t, backend)
	one := network(1, false)
	app, other := w.attach("app", member(one, 10)), w.attach("other", member(one, 11))
	for port := 80; port <= 85; port++ {
		testenv.Serve(t, app.NS, fmt.Sprint("app", port), uint16(port))
		testenv.Serve(t, other.NS, fmt.Sprint("other", port), uint16(port))
	}
	r := spec.Routing{Networks: []spec.NetworkAddressing{one}}
	add := func(host string, port, target uint16, b spec.Backend) {
		for _, p := range published(port, target, b) {
			if host != "" {
				p.HostIP = netip.MustParseAddr(host)
			}
			r.Published = append(r.Published, p)
		}
	}
	add("", 80, 80, app.backend(0))                // single, host port = container port
	add("", 8080, 81, app.backend(0))              // single, translated
	add("", 81, 81, app.backend(0))                // range n:n
	add("", 82, 82, app.backend(0))                //
	add("", 9083, 83, app.backend(0))              // translated range
	add("", 9084, 84, app.backend(0))              //
	add("127.0.0.1", 7000, 80, app.backend(0))     // two on distinct loopback addresses (moby#52783)
	add("127.0.0.2", 7000, 80, other.backend(0))   //
	add("192.0.2.1", 7001, 80, app.backend(0))     // bound to one address, and another for the rest
	add("", 7001, 80, other.backend(0))            //
	add("2001:db8:2::1", 7002, 80, app.backend(0)) // IPv6 only
	add("0.0.0.0", 7003, 80, app.backend(0))       // IPv4 only
	w.apply(r)
	w.wantEqual("the whole matrix", r, true)

	localhost, second := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")
	eachTransport(func(network string) {
		for port, name := range map[uint16]string{80: "app80", 8080: "app81", 81: "app81", 82: "app82", 9083: "app83", 9084: "app84"} {
			w.wantAnswer("loopback", w.Host, network, localhost, port, name, gateway(false))
			w.wantAnswer("host", w.Host, network, w.HostAddr, port, name, w.HostAddr)
			w.wantAnswer("host", w.Host, network, w.HostAddr6, port, name, w.HostAddr6)
			w.wantAnswer("LAN", w.Client, network, w.HostAddr, port, name, w.ClientAddr)
			w.wantAnswer("LAN", w.Client, network, w.HostAddr6, port, name, w.ClientAddr6)
		}
		w.wantAnswer("first loopback address", w.Host, network, localhost, 7000, "app80", netip.Addr{})
		w.wantAnswer("second loopback address", w.Host, network, second, 7000, "other80", netip.Addr{})
		w.wantNobody("loopback-bound", w.Client, network, w.HostAddr, 7000)
		w.wantAnswer("bound address", w.Client, network, w.HostAddr, 7001, "app80", netip.Addr{})
		w.wantAnswer("every other address", w.Attacker, network, w.AttackerHostAddr, 7001, "other80", netip.Addr{})
		w.wantAnswer("every other address", w.Client, network, w.HostAddr6, 7001, "other80", netip.Addr{})
		w.wantAnswer("IPv6 only", w.Client, network, w.HostAddr6, 7002, "app80", netip.Addr{})
		w.wantNobody("IPv6 only", w.Client, network, w.HostAddr, 7002)
		w.wantAnswer("IPv4 only", w.Client, network, w.HostAddr, 7003, "app80", netip.Addr{})
		w.wantNobody("IPv4 only", w.Client, network, w.HostAddr6, 7003)
	})
}
