package rules

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dunnage/spec"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// scenarios are reviewed as text: testdata holds what each renders to.
func scenarios() map[string]spec.Routing {
	one, two, internal := testNetwork(1, false), testNetwork(2, false), testNetwork(3, true)
	app := testBackends("app", 1, 10, 3)
	weighted := testBackends("app", 1, 10, 3)
	weighted[0].Weight, weighted[2].Weight = 9, 2
	moved := testBackends("app", 1, 10, 2)
	moved[0].Port = 81
	route := func(port, target uint16, proto spec.Protocol, backends []spec.Backend) spec.PublishedRoute {
		return spec.PublishedRoute{Project: "web", Service: "app", Port: port, Target: target, Protocol: proto, Backends: backends}
	}
	service := func(net spec.NetworkAddressing, n int, backends []spec.Backend) spec.ServiceRoute {
		return spec.ServiceRoute{Project: "web", Service: "app", Network: net.ID, Addr: addr4(n, 2), Addr6: addr6(n, 2), Backends: backends}
	}
	published := func(all ...spec.PublishedRoute) spec.Routing {
		return spec.Routing{Networks: []spec.NetworkAddressing{one}, Published: all}
	}
	with := func(p spec.PublishedRoute, change func(*spec.PublishedRoute)) spec.PublishedRoute {
		change(&p)
		return p
	}
	var ports []spec.PublishedRoute
	for i := range 40 {
		ports = append(ports, route(uint16(30000+i), uint16(30000+i), spec.TCP, app[:1]))
	}
	return map[string]spec.Routing{
		"empty":     {},
		"published": published(route(8080, 80, spec.TCP, app)),
		"both-protocols": published(
			route(53, 53, spec.TCP, app[:1]), route(53, 53, spec.UDP, app[:1])),
		"service":  {Networks: []spec.NetworkAddressing{one}, Services: []spec.ServiceRoute{service(one, 1, app)}},
		"internal": {Networks: []spec.NetworkAddressing{one, internal}, Services: []spec.ServiceRoute{service(internal, 3, testBackends("app", 3, 10, 2))}},
		"allow": published(with(route(5432, 5432, spec.TCP, app[:2]), func(p *spec.PublishedRoute) {
			p.Allow = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("2001:db8::/32")}
		})),
		"host-addresses": published(
			with(route(80, 80, spec.TCP, app[:1]), func(p *spec.PublishedRoute) { p.HostIP = netip.MustParseAddr("127.0.0.1") }),
			with(route(80, 8080, spec.TCP, app[1:2]), func(p *spec.PublishedRoute) { p.HostIP = netip.MustParseAddr("192.0.2.1") }),
			with(route(80, 80, spec.TCP, app[2:]), func(p *spec.PublishedRoute) { p.HostIP = netip.MustParseAddr("2001:db8::1") })),
		"absent": published(
			route(80, 80, spec.TCP, nil),
			with(route(443, 443, spec.TCP, nil), func(p *spec.PublishedRoute) { p.Absent = spec.Hold })),
		"many-ports": published(ports...),
		"moved":      published(route(8080, 8080, spec.TCP, moved)),
		"weighted":   published(route(8080, 80, spec.TCP, weighted)),
		"sticky": published(with(route(8080, 80, spec.TCP, weighted), func(p *spec.PublishedRoute) {
			p.Sticky = true
		})),
		"two-networks": {
			Networks: []spec.NetworkAddressing{one, two},
			Services: []spec.ServiceRoute{service(one, 1, testBackends("app", 1, 10, 1)), service(two, 2, testBackends("app", 2, 10, 1))},
		},
	}
}

func TestGolden(t *testing.T) {
	for name, r := range scenarios() {
		t.Run(name, func(t *testing.T) {
			v4, v6, err := Render(r, testConfig)
			if err != nil {
				t.Fatal(err)
			}
			got := "# IPv4\n" + v4.String() + "# IPv6\n" + v6.String()
			path := filepath.Join("testdata", name+".rules")
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("%s differs (-want +got); if that is meant, run the test with -update and review:\n%s", path, diff)
			}
		})
	}
}

func TestRefusedRoutings(t *testing.T) {
	one := testNetwork(1, false)
	outside := spec.Backend{Replica: "r", Addr: netip.MustParseAddr("192.0.2.5")}
	reserved := spec.Backend{Replica: "r", Addr: Reserved(testConfig.Pool).Hold}
	for name, r := range map[string]spec.Routing{
		"sctp":              {Published: []spec.PublishedRoute{{Port: 1, Target: 1, Protocol: "sctp"}}},
		"port 0":            {Published: []spec.PublishedRoute{{Target: 1, Protocol: spec.TCP}}},
		"backend outside":   {Networks: []spec.NetworkAddressing{one}, Published: []spec.PublishedRoute{{Port: 1, Target: 1, Protocol: spec.TCP, Backends: []spec.Backend{outside}}}},
		"reserved backend":  {Services: []spec.ServiceRoute{{Network: one.ID, Addr: addr4(1, 2), Backends: []spec.Backend{reserved}}}},
		"reserved service":  {Services: []spec.ServiceRoute{{Network: one.ID, Addr: Reserved(testConfig.Pool).Gateway}}},
		"reserved subnet":   {Networks: []spec.NetworkAddressing{testNetwork(0, false)}},
		"overlapping, wide": {Networks: []spec.NetworkAddressing{{ID: "x", Subnet: testConfig.Pool}}},
		"negative weight":   {Published: []spec.PublishedRoute{{Port: 1, Target: 1, Protocol: spec.TCP, Backends: []spec.Backend{{Replica: "r", Addr: addr4(1, 10), Weight: -1}}}}},
	} {
		if _, _, err := Render(r, testConfig); err == nil {
			t.Errorf("%s: rendered, want an error", name)
		}
	}
}
