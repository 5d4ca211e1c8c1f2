package plan_test

import (
	"net/netip"
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
