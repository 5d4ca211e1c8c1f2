package plan_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// pair is a release of "vpn" and of "app", which joins its network.
func pair(number int, vpn, app string) spec.Release {
	join := spec.Service{
		Name: "app", Replicas: 1, Update: spec.UpdatePolicy{Order: spec.StopFirst},
		DependsOn: []spec.Dependency{{Service: "vpn", Condition: spec.DependStarted}},
		Container: spec.Container{Image: app, Network: spec.NetworkService, Joins: "vpn"},
	}
	own := spec.Service{
		Name: "vpn", Replicas: 1, Update: spec.UpdatePolicy{Order: spec.StartFirst},
		Container: spec.Container{Image: vpn, Hostname: "gate", Networks: []spec.Attachment{{Name: "default"}}},
	}
	return spec.Release{
		Number: number, Images: map[string]spec.PinnedImage{"app": {Digest: app}, "vpn": {Digest: vpn}},
		Project: spec.Project{Name: "p", Services: []spec.Service{join, own}, Networks: []spec.Network{{Name: "default"}}},
	}
}

// member is replica 1 of a service as the release has it, running.
func member(r spec.Release, service string, edits ...func(*plan.Replica)) plan.Replica {
	gen := r.Generation(service)
	s, _ := r.Project.Service(service)
	out := plan.Replica{
		ReplicaKey: spec.ReplicaKey{ID: spec.ReplicaID("p", service, gen, 1), Project: "p", Service: service, Generation: gen, Number: 1},
		Exists:     true, Attached: true, Recorded: true, Phase: spec.PhaseRunning, Pid: 1, StartedAt: noon.Add(-1), Health: spec.HealthHealthy,
		Names: plan.Fingerprint(nil),
	}
	out.Record = spec.ReplicaRecord{ReplicaKey: out.ReplicaKey, Running: true, Restart: spec.RestartPolicy{Mode: spec.RestartAlways}, Network: s.Container.Network, Joins: r.Joined(s, 1)}
	for _, e := range edits {
		e(&out)
	}
	return out
}

func stopped(r *plan.Replica) {
	r.Phase, r.Pid, r.ExitedAt = spec.PhaseExited, 0, noon
	r.Record.Running, r.Record.Requested, r.Record.Exit = false, true, &spec.Exit{At: noon}
}
func detached(r *plan.Replica) { r.Attached = false }

// TestJoined: who shares a network is replaced with it, after it, and never
// sees it taken away.
func TestJoined(t *testing.T) {
	before, after := pair(1, "vpn1", "app1"), pair(2, "vpn2", "app1")
	for name, tc := range map[string]struct {
		replicas []plan.Replica
		want     string
	}{
		"nothing to do":                        {[]plan.Replica{member(after, "vpn"), member(after, "app")}, ""},
		"it waits for the network":             {[]plan.Replica{member(before, "vpn", named), member(before, "app"), member(after, "vpn", created)}, "Start vpn2"},
		"it is made when the network is":       {[]plan.Replica{member(before, "vpn", named), member(before, "app"), member(after, "vpn", starting)}, "Create app2"},
		"the old one goes first":               {[]plan.Replica{member(before, "vpn", named), member(before, "app"), member(after, "vpn", named), member(after, "app", created)}, "Stop app1"},
		"then the new one starts":              {[]plan.Replica{member(after, "vpn", named), member(after, "app", created), member(before, "app", stopped)}, "Remove app1, Start app2"},
		"a network stays while it is shared":   {[]plan.Replica{member(before, "vpn", stopped), member(before, "app"), member(after, "vpn", named), member(after, "app", created)}, "Stop app1"},
		"also by one that has stopped":         {[]plan.Replica{member(before, "vpn", stopped), member(before, "app", stopped), member(after, "vpn", named), member(after, "app")}, "Remove app1"},
		"and goes with the last who shares":    {[]plan.Replica{member(before, "vpn", stopped), member(after, "vpn", named), member(after, "app")}, "Remove vpn1"},
		"nor does one start without a network": {[]plan.Replica{member(before, "app", crashed, detached), member(after, "vpn", created)}, "Start vpn2"},
		"its owner is mended, not who shares":  {[]plan.Replica{member(after, "vpn", named, detached), member(after, "app", detached)}, "Create vpn2"},
	} {
		t.Run(name, func(t *testing.T) {
			d := plan.Desired{Projects: []plan.Project{{Record: spec.ProjectRecord{Name: "p", Desired: 2, Good: 1}, Release: after, Good: &before}}}
			slices.SortFunc(tc.replicas, func(a, b plan.Replica) int { return strings.Compare(a.ID, b.ID) })
			var got []string
			for _, a := range plan.Make(d, plan.Observed{Now: noon, Replicas: tc.replicas, RulesEqual: true}).Actions {
				k := a.Replica()
				number := 1
				if k.Generation == after.Generation(k.Service) {
					number = 2
				}
				if k.ID != "" {
					got = append(got, fmt.Sprintf("%s %s%d", strings.TrimPrefix(fmt.Sprintf("%T", a), "plan."), k.Service, number))
				}
				if c, ok := a.(plan.Create); ok && k.Service == "app" && c.Joins != spec.ReplicaID("p", "vpn", after.Generation("vpn"), 1) {
					t.Errorf("%s joins %q", k.ID, c.Joins)
				}
			}
			slices.Sort(got)
			if text := strings.Join(got, ", "); text != tc.want {
				t.Errorf("actions %q, want %q", text, tc.want)
			}
		})
	}
}

// inStep is pair with both start-first, so that they are replaced together.
func inStep(number int, vpn, app string) spec.Release {
	r := pair(number, vpn, app)
	r.Project.Services[0].Update.Order = spec.StartFirst
	return r
}

func leaving(r *plan.Replica) {
	r.Named, r.Conns, r.Record.Drain = false, 1, spec.Duration(time.Minute)
}
func overdue(r *plan.Replica) { leaving(r); r.DrainingSince = noon.Add(-time.Minute) }

// TestInStep: who shares a network and the one whose it is are made, switched
// and stopped together, so that nothing is refused meanwhile.
func TestInStep(t *testing.T) {
	before, after := inStep(1, "vpn1", "app1"), inStep(2, "vpn1", "app2")
	addressed := func(last byte) func(*plan.Replica) {
		return func(r *plan.Replica) {
			r.Record.Addresses = []spec.EndpointAddress{{Network: "p_default", Addr: netip.AddrFrom4([4]byte{10, 9, 1, last})}}
		}
	}
	was, now := addressed(11), addressed(12)
	old := member(before, "app")
	for name, tc := range map[string]struct {
		replicas []plan.Replica
		actions  string
		backend  string
	}{
		"both are made anew":            {[]plan.Replica{member(before, "vpn", was, named), old}, "Create vpn2", "vpn1"},
		"one after the other":           {[]plan.Replica{member(before, "vpn", was, named), old, member(after, "vpn", now, created)}, "Start vpn2", "vpn1"},
		"beside the old ones":           {[]plan.Replica{member(before, "vpn", was, named), old, member(after, "vpn", now)}, "Create app2", "vpn1"},
		"which aren't stopped for them": {[]plan.Replica{member(before, "vpn", was, named), old, member(after, "vpn", now), member(after, "app", created)}, "Start app2", "vpn1"},
		"and carry until they are well": {[]plan.Replica{member(before, "vpn", was, named), old, member(after, "vpn", now), member(after, "app", starting)}, "", "vpn1"},
		"one that fails changes nothing": {
			[]plan.Replica{member(before, "vpn", was, named), old, member(after, "vpn", now), member(after, "app", unhealthy)}, "", "vpn1",
		},
		"the switch stops neither":       {[]plan.Replica{member(before, "vpn", was, named), old, member(after, "vpn", now), member(after, "app")}, "", "vpn2"},
		"nor do they while one drains":   {[]plan.Replica{member(before, "vpn", was, leaving), old, member(after, "vpn", now, named), member(after, "app")}, "Drain vpn1", "vpn2"},
		"then they stop together":        {[]plan.Replica{member(before, "vpn", was, overdue), old, member(after, "vpn", now, named), member(after, "app")}, "Stop app1, Stop vpn1", "vpn2"},
		"an old one that fails is kept":  {[]plan.Replica{member(before, "vpn", was, named), member(before, "app", crashed), member(after, "vpn", now, starting)}, "Create app2, Start app1", "vpn1"},
		"one alone takes connections":    {[]plan.Replica{member(after, "vpn", now), member(after, "app", starting)}, "", "vpn2"},
		"and keeps them when one is ill": {[]plan.Replica{member(after, "vpn", now, named), member(after, "app", unhealthy)}, "Stop app2", "vpn2"},
	} {
		t.Run(name, func(t *testing.T) {
			record := spec.ProjectRecord{
				Name: "p", Desired: 2, Good: 1,
				Addresses: []spec.ServiceLease{{Service: "vpn", Network: "p_default", Addr: netip.MustParseAddr("10.9.1.1")}},
			}
			if name == "and keeps them when one is ill" {
				record.Good = 2
			}
			project := plan.Project{Record: record, Release: after, Good: &before}
			d := plan.Desired{Projects: []plan.Project{project}}
			o := plan.Observed{Now: noon, Replicas: tc.replicas, RulesEqual: true}
			for i, r := range o.Replicas {
				s, _ := after.Project.Service(r.Service)
				o.Replicas[i].Names = plan.Fingerprint(plan.Endpoint(d, project, s, r.Record).Names)
			}
			slices.SortFunc(o.Replicas, func(a, b plan.Replica) int { return strings.Compare(a.ID, b.ID) })
			o.Applied = plan.Routes(d, o)
			label := func(k spec.ReplicaKey) string {
				if k.Generation == after.Generation(k.Service) {
					return k.Service + "2"
				}
				return k.Service + "1"
			}
			var did []string
			p := plan.Make(d, o)
			for _, a := range p.Actions {
				did = append(did, strings.TrimPrefix(fmt.Sprintf("%T", a), "plan.")+" "+label(a.Replica()))
			}
			slices.Sort(did)
			if got := strings.Join(did, ", "); got != tc.actions {
				t.Errorf("actions %q, want %q", got, tc.actions)
			}
			var to []string
			for _, b := range p.Routing.Services[0].Backends {
				i := slices.IndexFunc(o.Replicas, func(r plan.Replica) bool { return r.ID == b.Replica })
				to = append(to, label(o.Replicas[i].ReplicaKey))
			}
			if got := strings.Join(to, " "); got != tc.backend {
				t.Errorf("connections go to %q, want %q", got, tc.backend)
			}
		})
	}
}

// TestInStepTolerant: an owner that runs isn't left behind for the errors of its
// start, which came about all the same: its joiner is waited for.
func TestInStepTolerant(t *testing.T) {
	before, after := inStep(1, "vpn1", "app1"), inStep(2, "vpn1", "app2")
	for i := range after.Project.Services {
		after.Project.Services[i].Update.OnFailure = spec.FailureContinue
	}
	seemedToFail := func(r *plan.Replica) {
		r.Error, r.Errors, r.ErrorAt = "the call fails", 9, noon.Add(-1)
		r.Record.Addresses = []spec.EndpointAddress{{Network: "p_default", Addr: netip.MustParseAddr("10.9.1.12")}}
	}
	addressed := func(r *plan.Replica) {
		r.Record.Addresses = []spec.EndpointAddress{{Network: "p_default", Addr: netip.MustParseAddr("10.9.1.11")}}
	}
	old := member(before, "vpn", addressed, named)
	replicas := []plan.Replica{old, member(before, "app"), member(after, "vpn", seemedToFail)}
	slices.SortFunc(replicas, func(a, b plan.Replica) int { return strings.Compare(a.ID, b.ID) })
	d := plan.Desired{Projects: []plan.Project{{Release: after, Good: &before, Record: spec.ProjectRecord{
		Name: "p", Desired: 2, Good: 1, Addresses: []spec.ServiceLease{{Service: "vpn", Network: "p_default", Addr: netip.MustParseAddr("10.9.1.1")}},
	}}}}
	to := plan.Make(d, plan.Observed{Now: noon, Replicas: replicas, RulesEqual: true}).Routing.Services[0].Backends
	if len(to) != 1 || to[0].Replica != old.ID {
		t.Errorf("connections go to %v before the new joiner serves, want %s", to, old.ID)
	}
}

// TestInStepInBatches: who joins comes with the batch of the one it joins, and
// the batch isn't through before it.
func TestInStepInBatches(t *testing.T) {
	before, after := inStep(1, "vpn1", "app1"), inStep(2, "vpn2", "app1")
	for _, r := range []*spec.Release{&before, &after} {
		for i := range r.Project.Services {
			r.Project.Services[i].Replicas = 2
		}
		r.Project.Services[1].Update.Parallelism = 1
	}
	number := func(n int) func(*plan.Replica) {
		return func(r *plan.Replica) {
			r.Number, r.Record.Number = n, n
			r.ID = spec.ReplicaID("p", r.Service, r.Generation, n)
			r.Record.ID = r.ID
			if r.Service == "app" {
				r.Record.Joins = spec.ReplicaID("p", "vpn", after.Generation("vpn"), n)
			}
		}
	}
	olds := []plan.Replica{member(before, "vpn", named), member(before, "vpn", number(2), named)}
	for name, tc := range map[string]struct {
		fresh []plan.Replica
		want  string
	}{
		"the first needs only its own":      {[]plan.Replica{member(after, "vpn")}, "Create app-1"},
		"and is waited for":                 {[]plan.Replica{member(after, "vpn"), member(after, "app", starting)}, ""},
		"then the second batch begins":      {[]plan.Replica{member(after, "vpn"), member(after, "app")}, "Create vpn-2"},
		"whose comes when it has a network": {[]plan.Replica{member(after, "vpn", named), member(after, "app"), member(after, "vpn", number(2))}, "Create app-2"},
	} {
		t.Run(name, func(t *testing.T) {
			d := plan.Desired{Projects: []plan.Project{{Record: spec.ProjectRecord{Name: "p", Desired: 2, Good: 1}, Release: after, Good: &before}}}
			rs := slices.Concat(olds, tc.fresh)
			slices.SortFunc(rs, func(a, b plan.Replica) int { return strings.Compare(a.ID, b.ID) })
			var got []string
			for _, a := range plan.Make(d, plan.Observed{Now: noon, Replicas: rs, RulesEqual: true}).Actions {
				if k := a.Replica(); k.ID != "" {
					got = append(got, fmt.Sprintf("%s %s-%d", strings.TrimPrefix(fmt.Sprintf("%T", a), "plan."), k.Service, k.Number))
				}
			}
			slices.Sort(got)
			if text := strings.Join(got, ", "); text != tc.want {
				t.Errorf("actions %q, want %q", text, tc.want)
			}
		})
	}
}

// TestProgressWithoutNetworks: of a service that no rule names, a replica that
// starts again and again is no progress.
func TestProgressWithoutNetworks(t *testing.T) {
	before, after := pair(1, "vpn1", "app1"), pair(2, "vpn1", "app2")
	for _, r := range []*spec.Release{&before, &after} {
		r.Project.Services = []spec.Service{{Name: "app", Replicas: 1, Container: spec.Container{Network: spec.NetworkHost}}}
	}
	d := plan.Desired{Projects: []plan.Project{{Record: spec.ProjectRecord{Name: "p", Desired: 2, Good: 1, Since: noon.Add(-time.Hour)}, Release: after, Good: &before}}}
	for health, want := range map[spec.Health]string{spec.HealthStarting: "app: no progress for 10m0s: 0 of 1 ready", spec.HealthHealthy: ""} {
		r := member(after, "app", func(r *plan.Replica) { r.Health = health })
		o := plan.Observed{Now: noon, Replicas: []plan.Replica{r}, RulesEqual: true}
		if got := plan.Make(d, o).Rollout[0].Failed; got != want {
			t.Errorf("%s: failed is %q, want %q", health, got, want)
		}
	}
}

// TestProgressOfWhoDies: a replica that dies and is back, every now and then,
// doesn't keep a release that can't converge from failing.
func TestProgressOfWhoDies(t *testing.T) {
	before, after := pair(1, "vpn1", "app1"), pair(2, "vpn1", "app2")
	for _, r := range []*spec.Release{&before, &after} {
		r.Project.Services = []spec.Service{{Name: "app", Replicas: 2, Container: spec.Container{Network: spec.NetworkHost}}}
	}
	d := plan.Desired{Projects: []plan.Project{{Record: spec.ProjectRecord{Name: "p", Desired: 2, Good: 1, Since: noon.Add(-time.Hour)}, Release: after, Good: &before}}}
	for at, want := range map[time.Duration]string{-time.Minute: "app: no progress for 10m0s: 1 of 2 ready", -2 * time.Hour: ""} {
		died := member(after, "app", func(r *plan.Replica) {
			r.StartedAt, r.Record.Exit = noon.Add(-50*time.Second), &spec.Exit{At: noon.Add(at), Code: 3}
		})
		o := plan.Observed{Now: noon, Replicas: []plan.Replica{died}, RulesEqual: true}
		if got := plan.Make(d, o).Rollout[0].Failed; got != want {
			t.Errorf("it died %s ago: failed is %q, want %q", -at, got, want)
		}
	}
}

func TestHostnames(t *testing.T) {
	p := plan.Project{Release: pair(1, "vpn", "app")}
	own := func(mode spec.NetworkMode, name string) spec.Service {
		return spec.Service{Name: "web", Container: spec.Container{Network: mode, Hostname: name}}
	}
	for want, s := range map[string]spec.Service{
		"gate": p.Release.Project.Services[0], "web-2": own(spec.NetworkNone, ""), "": own(spec.NetworkHost, ""), "said": own(spec.NetworkHost, "said"),
	} {
		if got := plan.Hostname(p, s, 2); got != want {
			t.Errorf("%s in network %q has the hostname %q, want %q", s.Name, s.Container.Network, got, want)
		}
	}
}

// TestGapOfWhoJoins: a release isn't blamed for visits that the owner of a
// network loses while who joins it is replaced stop-first, nor for those before
// a joiner is there.
func TestGapOfWhoJoins(t *testing.T) {
	addr := netip.MustParseAddr("192.0.2.1")
	target := spec.VisitTarget{Project: "p", Service: "vpn", Addr: netip.AddrPortFrom(addr, 8081), Port: 8081}
	visits := map[string][]plan.Visited{"p": {{VisitTally: spec.VisitTally{
		VisitTarget: target, Sent: 20, Failed: 3, Reasons: map[string]int{"connection refused": 3},
	}}}}
	const blamed = "vpn: 3 of 20 visits of port 8081 failed during the rollout (max_failed 0): connection refused; `dunnage explain 8081` walks that way"
	addressed := func(r *plan.Replica) {
		r.Record.Addresses = []spec.EndpointAddress{{Network: "p_default", Addr: netip.MustParseAddr("10.9.1.11")}}
	}
	scaled := func(r spec.Release) spec.Release {
		r.Project.Services[1].Replicas = 2
		return r
	}
	alone, beside := pair(1, "vpn1", "app1"), inStep(1, "vpn1", "app1")
	for name, tc := range map[string]struct {
		before   *spec.Release
		after    spec.Release
		replicas func(before, after spec.Release) []plan.Replica
		failed   string
		absent   bool
	}{
		"both are replaced, the joiner is on its way": {
			&alone, pair(2, "vpn2", "app1"), func(before, after spec.Release) []plan.Replica {
				return []plan.Replica{member(after, "vpn", addressed, named), member(before, "app", stopped), member(after, "app", starting)}
			}, "", true,
		},
		"and is there": {
			&alone, pair(2, "vpn2", "app1"), func(_, after spec.Release) []plan.Replica {
				return []plan.Replica{member(after, "vpn", addressed, named), member(after, "app")}
			}, "", false,
		},
		"the joiner stays as it is": {
			&alone, scaled(pair(2, "vpn1", "app1")), func(_, after spec.Release) []plan.Replica {
				return []plan.Replica{member(after, "vpn", addressed, named), member(after, "app")}
			}, blamed, false,
		},
		"and falls ill": {
			&alone, scaled(pair(2, "vpn1", "app1")), func(_, after spec.Release) []plan.Replica {
				return []plan.Replica{member(after, "vpn", addressed, named), member(after, "app", unhealthy)}
			}, blamed, false,
		},
		"they go in step": {
			&beside, inStep(2, "vpn2", "app1"), func(before, after spec.Release) []plan.Replica {
				return []plan.Replica{member(before, "vpn", addressed, named), member(before, "app"), member(after, "vpn"), member(after, "app", starting)}
			}, blamed, false,
		},
		"they come for the first time": {
			nil, inStep(2, "vpn1", "app1"), func(_, after spec.Release) []plan.Replica {
				return []plan.Replica{member(after, "vpn", addressed, named), member(after, "app", starting)}
			}, "", true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			project := plan.Project{Record: spec.ProjectRecord{
				Name: "p", Desired: 2, Since: noon.Add(-time.Minute),
				Networks: []spec.NetworkAddressing{{ID: "p_default", Subnet: netip.MustParsePrefix("10.9.1.0/24")}},
			}, Release: tc.after, Good: tc.before}
			publish := func(r spec.Release) {
				r.Project.Services[1].Ports = []spec.Port{{Published: 8081, Target: 81, Protocol: spec.TCP}}
			}
			publish(tc.after)
			var before spec.Release
			if tc.before != nil {
				project.Record.Good, before = 1, *tc.before
				publish(before)
			}
			o := plan.Observed{Now: noon, Replicas: tc.replicas(before, tc.after), Visits: visits, RulesEqual: true, Fronts: []netip.Addr{addr}}
			slices.SortFunc(o.Replicas, func(a, b plan.Replica) int { return strings.Compare(a.ID, b.ID) })
			got := plan.Make(plan.Desired{Projects: []plan.Project{project}}, o)
			if r := got.Rollout[0]; r.Failed != tc.failed {
				t.Errorf("failed %q, want %q", r.Failed, tc.failed)
			}
			i := slices.IndexFunc(got.Visits, func(v spec.VisitTarget) bool { return v.Port == 8081 })
			if i < 0 || got.Visits[i].Absent != tc.absent {
				t.Errorf("visits %+v, want absent %v", got.Visits, tc.absent)
			}
		})
	}
}
