package plan_test

import (
	"net/netip"
	"testing"
	"time"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// warmProject has converged on "new" five minutes ago; "old" is warm for as long.
func warmProject(keep time.Duration) plan.Project {
	s := scene{order: spec.StartFirst, wanted: 1}
	next := release(2, "new", s)
	next.Project.Services[0].KeepWarm = spec.Duration(keep)
	return plan.Project{
		Record: spec.ProjectRecord{
			Name: "p", Desired: 2, Good: 2, Addresses: []spec.ServiceLease{{Service: "web", Network: "p_default", Addr: netip.MustParseAddr("10.9.1.1")}},
			Warm: []spec.WarmService{{Service: "web", Generation: generation("old", s), Replicas: 1, Release: 1, Until: noon.Add(5 * time.Minute)}},
		},
		Release: next, Good: &next,
	}
}

func TestWarm(t *testing.T) {
	s := scene{order: spec.StartFirst, wanted: 1}
	replaced := func(edits ...func(*plan.Project)) func(*plan.Project) {
		return func(p *plan.Project) {
			p.Record.Desired, p.Release.Number = 3, 3
			p.Release.Project.Services = []spec.Service{service("newer", s)}
			for _, e := range edits {
				e(p)
			}
		}
	}
	for name, tc := range map[string]struct {
		edit    func(*plan.Project)
		old     []func(*plan.Replica)
		current []func(*plan.Replica)
		want    string // its state; empty = it goes
	}{
		"kept":                 {want: "warm"},
		"health not known":     {old: []func(*plan.Replica){func(r *plan.Replica) { r.Health = spec.HealthUnknown }}, want: "warm"},
		"over":                 {edit: func(p *plan.Project) { p.Record.Warm[0].Until = noon }},
		"unhealthy":            {old: []func(*plan.Replica){func(r *plan.Replica) { r.Health = spec.HealthUnhealthy }}},
		"dead":                 {old: []func(*plan.Replica){exited(1, 0)}},
		"another generation":   {edit: func(p *plan.Project) { p.Record.Warm[0].Generation = "x" }},
		"more than there were": {edit: func(p *plan.Project) { p.Record.Warm[0].Replicas = 0 }},
		"stopped":              {edit: func(p *plan.Project) { p.Record.Stopped = []string{"web"} }},
		"not asked for":        {edit: func(p *plan.Project) { p.Release.Project.Services[0].KeepWarm = 0 }},
		// until that has converged, whatever it asks for
		"replaced once more":                   {edit: replaced(), want: "warm"},
		"replaced once more, and over":         {edit: replaced(func(p *plan.Project) { p.Record.Warm[0].Until = noon })},
		"replaced once more, with none ready":  {edit: replaced(), current: []func(*plan.Replica){exited(1, 0)}, want: "warm"},
		"replaced once more, in the other way": {edit: replaced(func(p *plan.Project) { p.Release.Project.Services[0].Update.Order = spec.StopFirst })},
		"left for another, by a rollback":      {edit: replaced(func(p *plan.Project) { p.Record.Backward = true }), want: "warm"},
	} {
		t.Run(name, func(t *testing.T) {
			p := warmProject(10 * time.Minute)
			if tc.edit != nil {
				tc.edit(&p)
			}
			old := replica("old", 1, s, tc.old...)
			current := replica("new", 1, s, append(tc.current, named)...)
			o := plan.Observed{Now: noon, Replicas: []plan.Replica{current, old}, RulesEqual: true}
			if old.ID < current.ID {
				o.Replicas = []plan.Replica{old, current}
			}
			d := plan.Desired{Projects: []plan.Project{p}}
			o.Applied = plan.Routes(d, o)
			made := plan.Make(d, o)
			goes := false
			for _, a := range made.Actions {
				goes = goes || a.Replica().ID == old.ID
			}
			state := ""
			for _, r := range made.Status[0].Services[0].Replicas {
				if r.Replica == old.ID && r.State == spec.StateWarm {
					state = "warm"
				}
			}
			if state != tc.want || goes != (tc.want == "") {
				t.Errorf("its state is %q, it goes: %t; %v", state, goes, made.Actions)
			}
			for _, route := range made.Routing.Services {
				for _, b := range route.Backends {
					if b.Replica == old.ID && name != "stopped" {
						t.Error("it takes connections")
					}
				}
			}
			if until := noon.Add(5 * time.Minute); tc.want != "" && (made.Wake.IsZero() || made.Wake.After(until)) {
				t.Errorf("looks again at %s", made.Wake)
			}
		})
	}
}
