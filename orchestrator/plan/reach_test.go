package plan_test

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

var (
	front4 = netip.MustParseAddr("192.0.2.1")
	front6 = netip.MustParseAddr("2001:db8::1")
)

// rolledOut is a release that has nothing left to do but to be reached at port
// 8080; it became the desired one a minute ago.
func rolledOut(first bool, ipv6 bool) (plan.Desired, plan.Observed) {
	s := scene{wanted: 1, order: spec.StartFirst}
	publish := func(r spec.Release) spec.Release {
		r.Project.Services[0].Ports = []spec.Port{{Published: 8080, Target: 80, Protocol: spec.TCP}}
		r.Project.Services[0].Update.OnFailure = spec.FailureRollback
		return r
	}
	old, now := publish(release(1, "old", s)), publish(release(2, "new", s))
	rec := spec.ProjectRecord{Name: "p", Desired: 2, Good: 1, Since: noon.Add(-time.Minute),
		Networks: []spec.NetworkAddressing{{ID: "p_default", Subnet: netip.MustParsePrefix("10.9.1.0/24")}}}
	p := plan.Project{Record: rec, Release: now, Good: &old}
	if first {
		p.Record.Good, p.Good = 0, nil
	}
	d := plan.Desired{Projects: []plan.Project{p}}
	r := replica("new", 1, s, named)
	r.Names = "x"
	o := plan.Observed{Now: noon, Replicas: []plan.Replica{r}, RulesEqual: true, Fronts: []netip.Addr{front4}, Committed: noon.Add(-10 * time.Second)}
	if ipv6 {
		o.Replicas[0].Record.Addresses[0].Addr6 = netip.MustParseAddr("fd00::1:a")
		o.Fronts = append(o.Fronts, front6)
	}
	o.Applied = plan.Make(d, o).Routing
	return d, o
}

// found is what the visitor found at port 8080.
func found(at netip.Addr, edits ...func(*spec.Reach)) spec.Reach {
	r := spec.Reach{VisitTarget: spec.VisitTarget{Addr: netip.AddrPortFrom(at, 8080)}, State: spec.ReachReachable, Asked: noon.Add(-time.Second)}
	for _, e := range edits {
		e(&r)
	}
	return r
}

func askedBefore(r *spec.Reach) { r.Asked = noon.Add(-11 * time.Second) } // the commit
func unasked(r *spec.Reach)     { r.Unasked, r.State = "no namespace", spec.ReachUnknown }
func failingFor(d time.Duration) func(*spec.Reach) {
	return func(r *spec.Reach) {
		r.State, r.Failed, r.Failing, r.Since, r.Detail = spec.ReachUnreachable, 3, noon.Add(-d), noon.Add(-d), "connection refused"
		r.Asked = time.Time{}
	}
}

// The gate of a rollout.
func TestReachedOrNot(t *testing.T) {
	for name, tc := range map[string]struct {
		first bool
		reach []spec.Reach

		converged bool
		failed    string // in the cause
		waiting   string
		tolerated string
		state     spec.ReplicaState
	}{
		"not asked yet":                {false, nil, false, "", "port 8080 has yet to be reached from outside", "", spec.StateReady},
		"reached":                      {false, []spec.Reach{found(front4)}, true, "", "", "", spec.StateReady},
		"reached before the commit":    {false, []spec.Reach{found(front4, askedBefore)}, false, "", "has yet to be reached", "", spec.StateReady},
		"the visitor can't ask":        {false, []spec.Reach{found(front4, unasked)}, true, "", "", "", spec.StateReady},
		"failing for a moment":         {false, []spec.Reach{found(front4, failingFor(2*time.Second))}, false, "", "has yet to be reached from outside: connection refused", "", spec.StateUnreachable},
		"failing for too long":         {false, []spec.Reach{found(front4, failingFor(6*time.Second))}, false, "web: port 8080: healthy inside, unreachable outside: connection refused, for 6s", "has yet to be reached", "", spec.StateUnreachable},
		"failing since before":         {false, []spec.Reach{found(front4, failingFor(time.Hour))}, true, "", "", "port 8080: healthy inside, unreachable outside: connection refused, as before this release", spec.StateUnreachable},
		"and nothing worked before it": {true, []spec.Reach{found(front4, failingFor(time.Hour))}, false, "unreachable outside: connection refused, for 1m0s", "has yet to be reached", "", spec.StateUnreachable},
	} {
		t.Run(name, func(t *testing.T) {
			d, o := rolledOut(tc.first, false)
			o.Reach = tc.reach
			p := plan.Make(d, o)
			got := p.Rollout[0]
			if got.Converged != tc.converged || (got.Failed != "") != (tc.failed != "") || !strings.Contains(got.Failed, tc.failed) {
				t.Errorf("rollout %+v, want converged %v, failed %q", got, tc.converged, tc.failed)
			}
			if got.Failed != "" && got.Action != spec.FailureRollback {
				t.Errorf("a release that isn't reached is answered with %q", got.Action)
			}
			s := p.Status[0].Services[0]
			if (s.Waiting != "") != (tc.waiting != "") || !strings.Contains(s.Waiting, tc.waiting) || s.Tolerated != tc.tolerated {
				t.Errorf("waiting %q, tolerated %q, want %q, %q", s.Waiting, s.Tolerated, tc.waiting, tc.tolerated)
			}
			if state := s.Replicas[0].State; state != tc.state || (s.Unreachable != "") != (tc.state == spec.StateUnreachable) {
				t.Errorf("replica %q, service %q, want %q", state, s.Unreachable, tc.state)
			}
		})
	}
}

// Many programs listen on IPv4 alone: nobody misses what never was.
func TestReachedByIPv4Alone(t *testing.T) {
	for name, tc := range map[string]struct {
		v6        spec.Reach
		converged bool
	}{
		"both":                {found(front6), true},
		"never by IPv6":       {found(front6, failingFor(30*time.Second)), true},
		"by IPv6 before this": {found(front6, failingFor(30*time.Second), askedBefore), false},
	} {
		t.Run(name, func(t *testing.T) {
			d, o := rolledOut(false, true)
			o.Reach = []spec.Reach{found(front4), tc.v6}
			slices.SortFunc(o.Reach, func(a, b spec.Reach) int { return cmp.Compare(a.Key(), b.Key()) })
			if got := plan.Make(d, o).Rollout[0]; got.Converged != tc.converged {
				t.Errorf("%+v, want converged %v", got, tc.converged)
			}
		})
	}
}

// The gate is for published TCP ports that are served.
func TestNotGated(t *testing.T) {
	for name, edit := range map[string]func(*spec.Service){
		"UDP":               func(s *spec.Service) { s.Ports[0].Protocol = spec.UDP },
		"no port":           func(s *spec.Service) { s.Ports = nil },
		"no replica":        func(s *spec.Service) { s.Replicas = 0 },
		"another's network": func(s *spec.Service) { s.Container.Networks = nil },
	} {
		t.Run(name, func(t *testing.T) {
			d, o := rolledOut(true, false)
			edit(&d.Projects[0].Release.Project.Services[0])
			gen := d.Projects[0].Release.Generation("web")
			r := &o.Replicas[0]
			r.Generation, r.ID = gen, spec.ReplicaID("p", "web", gen, 1)
			r.Record.ReplicaKey = r.ReplicaKey
			if len(d.Projects[0].Release.Project.Services[0].Container.Networks) == 0 || d.Projects[0].Release.Project.Services[0].Replicas == 0 {
				r.Named = false
			}
			o.Applied = plan.Make(d, o).Routing
			if got := plan.Make(d, o); strings.Contains(got.Status[0].Services[0].Waiting, "reached") || got.Rollout[0].Failed != "" {
				t.Errorf("%+v, %q", got.Rollout[0], got.Status[0].Services[0].Waiting)
			}
		})
	}
}

// Where the visitor is sent.
func TestVisits(t *testing.T) {
	d, o := rolledOut(false, true)
	s := &d.Projects[0].Release.Project.Services[0]
	s.Ports = []spec.Port{
		{Published: 8080, Target: 80, Protocol: spec.TCP},
		{Published: 8081, Target: 81, Protocol: spec.TCP, HostIP: netip.MustParseAddr("127.0.0.1")},
		{Published: 8082, Target: 80, Protocol: spec.TCP, HostIP: netip.MustParseAddr("198.51.100.9")},
		{Published: 8083, Target: 83, Protocol: spec.TCP, HostIP: netip.MustParseAddr("0.0.0.0")},
		{Published: 8084, Target: 83, Protocol: spec.TCP, HostIP: netip.MustParseAddr("::1")},
		{Published: 8085, Target: 83, Protocol: spec.UDP},
	}
	d.Projects[0].Record.Addresses = []spec.ServiceLease{{Service: "web", Network: "p_default", Addr: netip.MustParseAddr("10.9.1.2")}}
	s.Container.Probes = []spec.Probe{{Kind: spec.ProbeHTTP, Port: 80, Path: "/health"}}
	gen := d.Projects[0].Release.Generation("web") // the probe is part of it
	r := &o.Replicas[0]
	r.Generation, r.ID = gen, spec.ReplicaID("p", "web", gen, 1)
	r.Record.ReplicaKey = r.ReplicaKey
	var got []string
	for _, v := range plan.Make(d, o).Visits {
		if v.Absent {
			t.Errorf("nobody is said to serve %s", v.Addr)
		}
		got = append(got, strings.TrimSpace(v.Key()+" "+v.Path))
	}
	slices.Sort(got)
	want := []string{
		"192.0.2.1:8080 /health", "192.0.2.1:8083", "198.51.100.9:8082 /health", "[2001:db8::1]:8080 /health",
		"host 10.9.1.2:80", "host 127.0.0.1:8081",
	}
	if !slices.Equal(got, want) {
		t.Errorf("visits\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// The replicas of the release before have handed their connections over, and run
// on until the new ones are reached.
func TestOldReplicasStandBy(t *testing.T) {
	for name, tc := range map[string]struct {
		reach []spec.Reach
		stop  bool
	}{
		"not asked yet":         {nil, false},
		"reached before":        {[]spec.Reach{found(front4, askedBefore)}, false},
		"unreachable":           {[]spec.Reach{found(front4, failingFor(time.Second))}, false},
		"reached":               {[]spec.Reach{found(front4)}, true},
		"nobody can ask":        {[]spec.Reach{found(front4, unasked)}, true},
		"unreachable as before": {[]spec.Reach{found(front4, failingFor(time.Hour))}, true},
	} {
		t.Run(name, func(t *testing.T) {
			d, o := rolledOut(false, false)
			old := replica("old", 1, scene{wanted: 1, order: spec.StartFirst})
			o.Replicas = append(o.Replicas, old)
			slices.SortFunc(o.Replicas, func(a, b plan.Replica) int { return strings.Compare(a.ID, b.ID) })
			o.Reach = tc.reach
			var did []string
			for _, a := range plan.Make(d, o).Actions {
				if a.Replica().ID == old.ID {
					did = append(did, fmt.Sprintf("%T", a))
				}
			}
			if stop := len(did) > 0; stop != tc.stop {
				t.Errorf("actions on the old replica: %v", did)
			}
		})
	}
}
