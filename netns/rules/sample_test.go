package rules

import (
	"fmt"
	"net/netip"
	"slices"

	"pgregory.net/rapid"

	"dunnage/spec"
)

var testConfig = Config{Pool: netip.MustParsePrefix("10.213.0.0/16"), Pool6: netip.MustParsePrefix("fd00:d::/48")}

func addr4(net, host int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 213, byte(net), byte(host)})
}

func addr6(net, host int) netip.Addr {
	a := testConfig.Pool6.Addr().As16()
	a[7], a[15] = byte(net), byte(host)
	return netip.AddrFrom16(a)
}

func testNetwork(i int, internal bool) spec.NetworkAddressing {
	return spec.NetworkAddressing{
		ID: fmt.Sprintf("web_net%d", i), Internal: internal,
		Subnet: netip.PrefixFrom(addr4(i, 0), 24), Subnet6: netip.PrefixFrom(addr6(i, 0), 64),
	}
}

// testBackends are n replicas of a service in a network, from a host number on.
func testBackends(service string, net, from, n int) []spec.Backend {
	var all []spec.Backend
	for i := range n {
		all = append(all, spec.Backend{Replica: fmt.Sprintf("web-%s-0a1b2c3d-%d", service, i+1), Addr: addr4(net, from+i), Addr6: addr6(net, from+i)})
	}
	return all
}

// routings draws routings in the order that spec.Routing demands.
var routings = rapid.Custom(func(t *rapid.T) spec.Routing {
	var r spec.Routing
	networks := rapid.IntRange(1, 3).Draw(t, "networks")
	for i := range networks {
		r.Networks = append(r.Networks, testNetwork(i+1, rapid.Bool().Draw(t, "internal")))
	}
	for i := range rapid.IntRange(0, 4).Draw(t, "services") {
		net := rapid.IntRange(1, networks).Draw(t, "network")
		name := fmt.Sprintf("app%d", i)
		backends := testBackends(name, net, 20+10*i, rapid.IntRange(0, 7).Draw(t, "backends"))
		if rapid.Bool().Draw(t, "weighted") {
			for i := range backends {
				backends[i].Weight = rapid.IntRange(0, 100).Draw(t, "weight")
			}
		}
		sticky := rapid.Bool().Draw(t, "sticky")
		absent := rapid.SampledFrom([]spec.Absent{spec.Refuse, spec.Hold}).Draw(t, "absent")
		r.Services = append(r.Services, spec.ServiceRoute{
			Project: "web", Service: name, Network: testNetwork(net, false).ID, Addr: addr4(net, 2+i), Addr6: addr6(net, 2+i),
			Sticky: sticky, Backends: backends, Absent: absent,
		})
		r.Published = append(r.Published, drawPublished(t, i, r.Services[i])...)
	}
	return r
})

// drawPublished publishes some ports of a service; each service has its own
// thousands, so that two never want the same one.
func drawPublished(t *rapid.T, i int, s spec.ServiceRoute) []spec.PublishedRoute {
	allow := drawAllow(t)
	var all []spec.PublishedRoute
	first := rapid.IntRange(1+i*12000, 10000+i*12000).Draw(t, "first port")
	for n := range rapid.SampledFrom([]int{0, 1, 2, 17, 40}).Draw(t, "ports") {
		port := uint16(first + n)
		target := port
		if rapid.IntRange(0, 3).Draw(t, "translated") == 0 {
			target = 80
		}
		host := rapid.SampledFrom([]string{"", "192.0.2.1", "2001:db8::1", "0.0.0.0", "::", "127.0.0.1"}).Draw(t, "host")
		p := spec.PublishedRoute{
			Project: "web", Service: s.Service, Port: port, Target: target, Allow: allow,
			Sticky: s.Sticky, Backends: s.Backends, Absent: s.Absent,
		}
		if len(p.Backends) > 0 && rapid.IntRange(0, 3).Draw(t, "moved") == 0 {
			p.Backends = slices.Clone(p.Backends)
			p.Backends[0].Port = uint16(rapid.IntRange(1, 65535).Draw(t, "port before"))
		}
		if host != "" {
			p.HostIP = netip.MustParseAddr(host)
		}
		for _, p.Protocol = range []spec.Protocol{spec.TCP, spec.UDP} {
			if rapid.IntRange(0, 3).Draw(t, "left out") > 0 {
				all = append(all, p)
			}
		}
	}
	return all
}

func drawAllow(t *rapid.T) []netip.Prefix {
	var all []netip.Prefix
	for range rapid.SampledFrom([]int{0, 0, 1, 3}).Draw(t, "allowed") {
		var a netip.Addr
		if rapid.Bool().Draw(t, "allow IPv6") {
			a = netip.AddrFrom16([16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "bytes")))
		} else {
			a = netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "bytes")))
		}
		p, err := a.Prefix(rapid.IntRange(0, a.BitLen()).Draw(t, "bits"))
		if err == nil && !slices.Contains(all, p) {
			all = append(all, p)
		}
	}
	return all
}
