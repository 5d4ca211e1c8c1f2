package plan_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// TestRoutesSticky: a sticky service is so by its address and by its ports.
func TestRoutesSticky(t *testing.T) {
	for _, sticky := range []bool{false, true} {
		r := release(1, "new", scene{wanted: 1})
		web := &r.Project.Services[0]
		web.Sticky, web.Ports = sticky, []spec.Port{{Published: 80, Target: 80, Protocol: spec.TCP}}
		record := spec.ProjectRecord{
			Name: "p", Addresses: []spec.ServiceLease{{Service: "web", Network: "p_default", Addr: netip.MustParseAddr("10.9.1.1")}},
		}
		routing := plan.Routes(plan.Desired{Projects: []plan.Project{{Record: record, Release: r}}}, plan.Observed{Now: noon})
		if len(routing.Services) != 1 || len(routing.Published) != 1 {
			t.Fatalf("routes are %+v", routing)
		}
		if s, p := routing.Services[0].Sticky, routing.Published[0].Sticky; s != sticky || p != sticky {
			t.Errorf("sticky %v: service route has %v, published route %v", sticky, s, p)
		}
	}
}

// TestRoutesToWhereEachListens: while a release moves a published port to another
// one inside, the replicas of the release before are asked at the one that they
// listen on.
func TestRoutesToWhereEachListens(t *testing.T) {
	s := scene{wanted: 2, order: spec.StartFirst}
	with := func(r spec.Release, port uint16, path string) spec.Release {
		web := &r.Project.Services[0]
		web.Ports = []spec.Port{{Published: 8080, Target: port, Protocol: spec.TCP}}
		web.Container.Probes = []spec.Probe{{Kind: spec.ProbeHTTP, Port: port, Path: path}}
		return r
	}
	before, after := with(release(1, "old", s), 80, "/old"), with(release(2, "new", s), 81, "/new")
	of := func(r spec.Release, n int) plan.Replica {
		x := replica(r.Project.Services[0].Container.Image, n, s, named)
		x.Generation = r.Generation("web")
		x.ID = spec.ReplicaID("p", "web", x.Generation, n)
		x.Record.ReplicaKey = x.ReplicaKey
		return x
	}
	for name, tc := range map[string]struct {
		replicas []plan.Replica
		ports    []uint16 // of the backends; 0 = the route's
		path     string   // that a visit of the port asks for
		address  uint16   // that a visit of the service address goes to; 0 = none does
	}{
		"before": {[]plan.Replica{of(before, 1), of(before, 2)}, []uint16{80, 80}, "", 80},
		"midway": {[]plan.Replica{of(before, 2), of(after, 1)}, []uint16{0, 80}, "", 0},
		"after":  {[]plan.Replica{of(after, 1), of(after, 2)}, []uint16{0, 0}, "/new", 81},
	} {
		t.Run(name, func(t *testing.T) {
			record := spec.ProjectRecord{
				Name: "p", Desired: 2, Good: 1, Since: noon,
				Addresses: []spec.ServiceLease{{Service: "web", Network: "p_default", Addr: netip.MustParseAddr("10.9.1.1")}},
			}
			slices.SortFunc(tc.replicas, func(a, b plan.Replica) int { return strings.Compare(a.ID, b.ID) })
			p := plan.Make(plan.Desired{Projects: []plan.Project{{Record: record, Release: after, Good: &before}}},
				plan.Observed{Now: noon, Replicas: tc.replicas, RulesEqual: true, Fronts: []netip.Addr{front4}})
			var ports []uint16
			for _, b := range p.Routing.Published[0].Backends {
				ports = append(ports, b.Port)
			}
			if target := p.Routing.Published[0].Target; target != 81 || !slices.Equal(ports, tc.ports) {
				t.Errorf("target %d, ports %v, want 81, %v", target, ports, tc.ports)
			}
			var path string
			var address uint16
			for _, v := range p.Visits {
				if v.Port == 8080 {
					path = v.Path
				} else {
					address = v.Addr.Port()
				}
			}
			if path != tc.path || address != tc.address {
				t.Errorf("visits ask for %q, and port %d of the service's address; want %q, %d", path, address, tc.path, tc.address)
			}
		})
	}
}
