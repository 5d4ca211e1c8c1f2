package plan_test

import (
	"net/netip"
	"testing"
	"time"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// More visits that fail than allowed fail a release, unless it isn't to blame.
func TestMaxFailed(t *testing.T) {
	now := time.Unix(1000, 0)
	front, own := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("10.9.255.1")
	failed := func(port uint16, sent, n int) plan.Visited {
		addr := netip.AddrPortFrom(front, port)
		if port == 0 {
			addr = netip.AddrPortFrom(own, 80)
		}
		return plan.Visited{VisitTally: spec.VisitTally{
			VisitTarget: spec.VisitTarget{Project: "shop", Service: "web", Addr: addr, Port: port},
			Sent:        sent, Failed: n, Reasons: map[string]int{"connection refused": n, "no answer within 1s": 1},
		}}
	}
	const blamed = "web: 3 of 214 visits of port 8080 failed during the rollout (max_failed 0): connection refused; `dunnage explain 8080` walks that way"
	for name, tc := range map[string]struct {
		visits []plan.Visited
		edit   func(p *plan.Project, good, next *spec.Service)
		want   string
	}{
		"none":              {nil, nil, ""},
		"none of many":      {[]plan.Visited{failed(8080, 214, 0)}, nil, ""},
		"three":             {[]plan.Visited{failed(8080, 214, 3)}, nil, blamed},
		"the worst is told": {[]plan.Visited{failed(0, 10, 1), failed(8080, 214, 3)}, nil, blamed},
		"of its address":    {[]plan.Visited{failed(0, 10, 1)}, nil, "web: 1 of 10 visits of its address 10.9.255.1:80 failed during the rollout (max_failed 0): connection refused"},
		"as many as may":    {[]plan.Visited{failed(8080, 214, 3)}, func(_ *plan.Project, _, next *spec.Service) { next.MaxFailed = 3 }, ""},
		"all targets together": {[]plan.Visited{failed(8080, 214, 3), failed(0, 9, 1)}, func(_ *plan.Project, _, next *spec.Service) { next.MaxFailed = 3 },
			"web: 3 of 214 visits of port 8080 failed during the rollout (max_failed 3): connection refused; `dunnage explain 8080` walks that way"},
		"ill before":              {[]plan.Visited{{VisitTally: failed(8080, 214, 3).VisitTally, IllBefore: true}}, nil, ""},
		"the first release":       {[]plan.Visited{failed(8080, 214, 3)}, func(p *plan.Project, _, _ *spec.Service) { p.Good, p.Record.Good = nil, 0 }, ""},
		"on the way back":         {[]plan.Visited{failed(8080, 214, 3)}, func(p *plan.Project, _, _ *spec.Service) { p.Record.Backward = true }, ""},
		"paused":                  {[]plan.Visited{failed(8080, 214, 3)}, func(p *plan.Project, _, _ *spec.Service) { p.Record.Paused = "on request" }, ""},
		"continue":                {[]plan.Visited{failed(8080, 214, 3)}, func(_ *plan.Project, _, next *spec.Service) { next.Update.OnFailure = spec.FailureContinue }, ""},
		"a gap that is asked for": {[]plan.Visited{failed(8080, 214, 3)}, func(_ *plan.Project, _, next *spec.Service) { next.Update.Order = spec.StopFirst }, ""},
		"a port that goes":        {[]plan.Visited{failed(8080, 214, 3)}, func(_ *plan.Project, _, next *spec.Service) { next.Ports = nil }, ""},
		"a port that comes":       {[]plan.Visited{failed(8080, 214, 3)}, func(_ *plan.Project, good, _ *spec.Service) { good.Ports = nil }, ""},
		"a port for one address only": {[]plan.Visited{failed(8080, 214, 3)}, func(_ *plan.Project, _, next *spec.Service) {
			next.Ports = []spec.Port{{HostIP: netip.MustParseAddr("127.0.0.1"), Published: 8080, Target: 80, Protocol: spec.TCP}}
		}, ""},
		"other clients": {[]plan.Visited{failed(8080, 214, 3)}, func(_ *plan.Project, _, next *spec.Service) {
			next.Allow = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}
		}, ""},
		"an address that goes":       {[]plan.Visited{failed(0, 10, 1)}, func(p *plan.Project, _, _ *spec.Service) { p.Record.Addresses = nil }, ""},
		"another service":            {[]plan.Visited{func() plan.Visited { v := failed(8080, 214, 3); v.Service = "db"; return v }()}, nil, ""},
		"a service without replicas": {[]plan.Visited{failed(8080, 214, 3)}, func(_ *plan.Project, _, next *spec.Service) { next.Replicas = 0 }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			service := spec.Service{
				Name: "web", Replicas: 1, Container: spec.Container{Image: "old"}, Update: spec.UpdatePolicy{Order: spec.StartFirst},
				Ports: []spec.Port{{Published: 8080, Target: 80, Protocol: spec.TCP}},
			}
			good := spec.Release{Number: 1, Project: spec.Project{Name: "shop", Services: []spec.Service{service}}}
			service.Container.Image = "new"
			p := plan.Project{
				Record: spec.ProjectRecord{
					Name: "shop", Desired: 2, Good: 1, Since: now,
					Addresses: []spec.ServiceLease{{Service: "web", Network: "shop_default", Addr: own}},
				},
				Release: spec.Release{Number: 2, Project: spec.Project{Name: "shop", Services: []spec.Service{service}}}, Good: &good,
			}
			if tc.edit != nil {
				tc.edit(&p, &good.Project.Services[0], &p.Release.Project.Services[0])
			}
			got := plan.Make(plan.Desired{Projects: []plan.Project{p}}, plan.Observed{Now: now, Visits: map[string][]plan.Visited{"shop": tc.visits}})
			if r := got.Rollout[0]; r.Failed != tc.want || r.Failed != "" && r.Converged {
				t.Errorf("failed %q, want %q", r.Failed, tc.want)
			}
		})
	}
}
