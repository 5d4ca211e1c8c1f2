package plan_test

import (
	"slices"
	"strings"
	"testing"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// kept says which services stay until release 2 has converged.
func kept(good *spec.Release, next spec.Release, edits ...func(*spec.ProjectRecord)) (leaving, beside string) {
	record := spec.ProjectRecord{Name: "p", Desired: 2, Good: 1}
	for _, e := range edits {
		e(&record)
	}
	p := plan.Project{Record: record, Release: next, Good: good}.KeepLeaving()
	return strings.Join(p.Leaving, " "), strings.Join(p.Beside, " ")
}

// TestKeepLeaving: what the desired release removes stays until that has
// converged, but for what would be in its way.
func TestKeepLeaving(t *testing.T) {
	with := func(edit func(old, next *spec.Service)) (*spec.Release, spec.Release) {
		old := spec.Service{Name: "side", Replicas: 1, Container: spec.Container{Image: "old", Networks: []spec.Attachment{{Name: "back"}}}}
		next := spec.Service{Name: "fresh", Replicas: 1, Container: spec.Container{Image: "new", Networks: []spec.Attachment{{Name: "default"}}}}
		if edit != nil {
			edit(&old, &next)
		}
		s := scene{wanted: 1}
		good, r := release(1, "old", s), release(2, "new", s)
		good.Project.Services = append(good.Project.Services, old)
		good.Project.Networks = append(good.Project.Networks, spec.Network{Name: "back"})
		r.Project.Services = append(r.Project.Services, next)
		return &good, r
	}
	for name, tc := range map[string]struct {
		edit func(old, next *spec.Service)
		want string
	}{
		"one that nobody replaces stays": {nil, "side"},
		"one with the same port goes": {func(old, next *spec.Service) {
			old.Ports, next.Ports = []spec.Port{{Published: 80, Protocol: spec.TCP}}, []spec.Port{{Published: 80, Target: 1, Protocol: spec.TCP}}
		}, ""},
		"another protocol is another port": {func(old, next *spec.Service) {
			old.Ports, next.Ports = []spec.Port{{Published: 80, Protocol: spec.TCP}}, []spec.Port{{Published: 80, Protocol: spec.UDP}}
		}, "side"},
		"one with the same volume goes": {func(old, next *spec.Service) {
			m := []spec.Mount{{Type: spec.MountVolume, Source: "p_data", Target: "/data"}}
			old.Container.Mounts, next.Container.Mounts = m, m
		}, ""},
		"one with the same name goes": {func(old, next *spec.Service) {
			old.Container.ContainerName, next.Container.ContainerName = "db", "db"
		}, ""},
		"one in the host's network goes": {func(old, next *spec.Service) {
			old.Container.Network, next.Container.Network = spec.NetworkHost, spec.NetworkHost
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			good, next := with(tc.edit)
			if leaving, _ := kept(good, next); leaving != tc.want {
				t.Errorf("%q, want %q", leaving, tc.want)
			}
		})
	}
	good, next := with(func(old, _ *spec.Service) {
		old.Container.Mounts = []spec.Mount{{Type: spec.MountVolume, Source: "p_data", Target: "/data"}}
	})
	for _, r := range []*spec.Release{good, &next} {
		r.Project.Services[0].Container.Mounts = []spec.Mount{{Type: spec.MountVolume, Source: "p_data", Target: "/data"}}
	}
	if leaving, _ := kept(good, next); leaving != "side" {
		t.Errorf("one that shares a volume already: %q", leaving)
	}
	if leaving, _ := kept(good, next, func(r *spec.ProjectRecord) { r.Good = 2 }); leaving != "" {
		t.Errorf("after it has converged: %q", leaving)
	}
	if leaving, _ := kept(nil, next); leaving != "" {
		t.Errorf("with nothing to go back to: %q", leaving)
	}
	if leaving, _ := kept(good, next, func(r *spec.ProjectRecord) { r.Held = []string{"side"} }); leaving != "" {
		t.Errorf("one that was stopped on request: %q", leaving)
	}
	p := plan.Project{Record: spec.ProjectRecord{Name: "p", Desired: 2, Good: 1}, Release: next, Good: good}.KeepLeaving()
	if p.Release.Generation("side") != good.Generation("side") || p.Release.Generation("web") != next.Generation("web") {
		t.Error("it is another generation")
	}
	if _, ok := p.Release.Project.Network("back"); !ok || len(next.Project.Services) != 2 || len(next.Project.Networks) != 1 {
		t.Errorf("networks %v; of the release itself %+v", p.Release.Project.Networks, next.Project)
	}
}

// TestKeepLeavingTogether: services that share a network leave together, and
// one whose owner stays keeps to its replica.
func TestKeepLeavingTogether(t *testing.T) {
	good := pair(1, "vpn1", "app1")
	next := pair(2, "vpn2", "app1")
	next.Project.Services = next.Project.Services[1:]
	if leaving, beside := kept(&good, next); leaving != "" || beside != "app" {
		t.Errorf("its owner stays: %q, %q", leaving, beside)
	}
	none := release(2, "new", scene{wanted: 1})
	if leaving, beside := kept(&good, none); leaving != "app vpn" || beside != "" {
		t.Errorf("both leave: %q, %q", leaving, beside)
	}
	p := plan.Project{Record: spec.ProjectRecord{Name: "p", Desired: 2, Good: 1}, Release: next, Good: &good}.KeepLeaving()
	for owner, want := range map[string]bool{"serves": false, "has gone": true} {
		rs := []plan.Replica{member(good, "app")}
		if owner == "serves" {
			rs = append(rs, member(good, "vpn", named))
		}
		slices.SortFunc(rs, func(a, b plan.Replica) int { return strings.Compare(a.ID, b.ID) })
		o := plan.Observed{Now: noon, Replicas: rs, RulesEqual: true}
		d := plan.Desired{Projects: []plan.Project{p}}
		o.Applied = plan.Routes(d, o)
		stops := slices.ContainsFunc(plan.Make(d, o).Actions, func(a plan.Action) bool {
			s, ok := a.(plan.Stop)
			return ok && s.Key.Service == "app"
		})
		if stops != want {
			t.Errorf("the owner %s: stopped %v", owner, stops)
		}
	}
}
