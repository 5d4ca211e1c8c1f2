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

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// scene is one project with one service "web", as a table of replicas: the
// images are "new", which is wanted, and "old", which converged before.
type scene struct {
	order   spec.UpdateOrder
	wanted  int
	depends bool // on a service that isn't healthy
	first   bool // there is no earlier release
	stopped bool
}

func service(image string, s scene) spec.Service {
	svc := spec.Service{
		Name: "web", Replicas: s.wanted, Update: spec.UpdatePolicy{Order: s.order}, Drain: spec.Duration(10 * time.Second),
		Container: spec.Container{Image: image, Networks: []spec.Attachment{{Name: "default"}}},
	}
	if s.depends {
		svc.DependsOn = []spec.Dependency{{Service: "db", Condition: spec.DependHealthy}}
	}
	return svc
}

func release(number int, image string, s scene) spec.Release {
	p := spec.Project{Name: "p", Services: []spec.Service{service(image, s)}, Networks: []spec.Network{{Name: "default"}}}
	images := map[string]spec.PinnedImage{"web": {Ref: image, Digest: image}}
	if s.depends {
		p.Services = append(p.Services, spec.Service{Name: "db", Replicas: 1, Container: spec.Container{Networks: []spec.Attachment{{Name: "default"}}}})
	}
	return spec.Release{Number: number, Project: p, Images: images}
}

func generation(image string, s scene) string { return release(1, image, s).Generation("web") }

// replica is one in steady state; edits make it what the test is about.
func replica(image string, n int, s scene, edits ...func(*plan.Replica)) plan.Replica {
	svc := service(image, s)
	gen := generation(image, s)
	r := plan.Replica{
		ReplicaKey: spec.ReplicaKey{ID: spec.ReplicaID("p", "web", gen, n), Project: "p", Service: "web", Generation: gen, Number: n},
		Exists:     true, Attached: true, Recorded: true, Phase: spec.PhaseRunning, Pid: 1, StartedAt: noon.Add(-time.Minute), Health: spec.HealthHealthy,
	}
	last := byte(10 + n)
	if image == "old" {
		last += 100
	}
	r.Record = spec.ReplicaRecord{
		ReplicaKey: r.ReplicaKey, Running: true, Drain: svc.Drain, StopGrace: spec.Duration(5 * time.Second),
		Restart:   spec.RestartPolicy{Mode: spec.RestartAlways},
		Addresses: []spec.EndpointAddress{{Network: "p_default", Addr: netip.AddrFrom4([4]byte{10, 9, 1, last})}},
	}
	for _, e := range edits {
		e(&r)
	}
	return r
}

func named(r *plan.Replica)    { r.Named = true }
func starting(r *plan.Replica) { r.Health = spec.HealthStarting }
func exited(code int, ago time.Duration) func(*plan.Replica) {
	return func(r *plan.Replica) {
		r.Phase, r.Pid, r.ExitedAt, r.ExitCode = spec.PhaseExited, 0, noon.Add(-ago), code
	}
}
func recorded(failures int) func(*plan.Replica) {
	return func(r *plan.Replica) {
		r.Record.Running, r.Record.Failures = false, failures
		r.Record.Exit = &spec.Exit{At: r.ExitedAt, Code: r.ExitCode}
	}
}

// decide plans for the replicas and returns the actions as words, and the
// backends of the service's route.
func decide(s scene, replicas ...plan.Replica) (actions []string, backends []string) {
	record := spec.ProjectRecord{
		Name: "p", Desired: 2, Good: 1, Addresses: []spec.ServiceLease{{Service: "web", Network: "p_default", Addr: netip.MustParseAddr("10.9.1.1")}},
	}
	if s.stopped {
		record.Stopped = []string{"web"}
	}
	good := release(1, "old", s)
	project := plan.Project{Record: record, Release: release(2, "new", s), Good: &good}
	if s.first {
		project.Good, project.Record.Good = nil, 0
	}
	for i := range replicas { // names are up to date: tests of those set their own
		r := &replicas[i]
		r.Names = plan.Fingerprint(plan.Endpoint(plan.Desired{}, project, service("new", s), r.Record).Names)
	}
	slices.SortFunc(replicas, func(a, b plan.Replica) int { return strings.Compare(a.ID, b.ID) })
	d := plan.Desired{Projects: []plan.Project{project}}
	o := plan.Observed{Now: noon, Replicas: replicas, RulesEqual: true}
	o.Applied = plan.Routes(d, o)
	p := plan.Make(d, o)
	for _, a := range p.Actions {
		verb := strings.TrimPrefix(fmt.Sprintf("%T", a), "plan.")
		if k := a.Replica(); k.Service == "web" {
			actions = append(actions, verb+" "+label(k, s))
		}
	}
	for _, route := range p.Routing.Services {
		for _, b := range route.Backends {
			for _, r := range replicas {
				if r.ID == b.Replica {
					backends = append(backends, label(r.ReplicaKey, s))
				}
			}
		}
	}
	slices.Sort(actions)
	slices.Sort(backends)
	return actions, backends
}

func label(k spec.ReplicaKey, s scene) string {
	image := "old"
	if k.Generation == generation("new", s) {
		image = "new"
	}
	return fmt.Sprintf("%s%d", image, k.Number)
}

func TestMake(t *testing.T) {
	two := scene{order: spec.StartFirst, wanted: 2}
	one := scene{order: spec.StopFirst, wanted: 1}
	for name, tc := range map[string]struct {
		scene    scene
		replicas []plan.Replica
		actions  string
		backends string
	}{
		"a first deploy makes what is missing": {two, nil, "Create new1, Create new2", ""},
		"old ones carry on until enough new ones are ready": {
			two, []plan.Replica{replica("old", 1, two, named), replica("old", 2, two, named), replica("new", 1, two), replica("new", 2, two, starting)},
			"", "old1 old2",
		},
		"then all connections go to the new ones": {
			two, []plan.Replica{replica("old", 1, two, named), replica("old", 2, two, named), replica("new", 1, two), replica("new", 2, two)},
			"", "new1 new2",
		},
		"what a rule names isn't stopped, what none names is": {
			two, []plan.Replica{replica("old", 1, two, named), replica("old", 2, two), replica("new", 1, two, named), replica("new", 2, two, named)},
			"Stop old2", "new1 new2",
		},
		"connections are waited for": {
			two, []plan.Replica{replica("old", 1, two, func(r *plan.Replica) { r.Conns = 3 }), replica("new", 1, two, named), replica("new", 2, two, named)},
			"Drain old1", "new1 new2",
		},
		"but not for ever": {
			two, []plan.Replica{replica("old", 1, two, func(r *plan.Replica) { r.Conns, r.DrainingSince = 3, noon.Add(-10*time.Second) }), replica("new", 1, two, named), replica("new", 2, two, named)},
			"Stop old1", "new1 new2",
		},
		"one that outlives its grace period is killed": {
			two, []plan.Replica{replica("old", 1, two, func(r *plan.Replica) { r.StoppingSince = noon.Add(-5 * time.Second) }), replica("new", 1, two, named), replica("new", 2, two, named)},
			"Kill old1", "new1 new2",
		},
		"an exit is stored before anything else": {
			two, []plan.Replica{replica("new", 1, two, named), replica("new", 2, two, exited(1, time.Second))},
			"RecordExit new2", "new1",
		},
		"a first failure is restarted at once": {
			two, []plan.Replica{replica("new", 1, two, named), replica("new", 2, two, exited(1, 0), recorded(1))},
			"Start new2", "new1",
		},
		"a repeated one waits": {
			two, []plan.Replica{replica("new", 1, two, named), replica("new", 2, two, exited(1, time.Second), recorded(6))},
			"", "new1",
		},
		"one that never began doesn't take the exit before for its own": {
			two, []plan.Replica{replica("new", 1, two, named), replica("new", 2, two, exited(0, time.Minute), recorded(1), func(r *plan.Replica) { r.Record.Running = true })},
			"Start new2", "new1",
		},
		"a dead one isn't started while rules name it": {
			two, []plan.Replica{replica("new", 1, two, named), replica("new", 2, two, exited(1, 0), recorded(1), named)},
			"", "new1",
		},
		"health not known yet is believed while the kernel sends connections": {
			two, []plan.Replica{
				replica("new", 1, two, named, func(r *plan.Replica) { r.Health = spec.HealthUnknown }),
				replica("new", 2, two, func(r *plan.Replica) { r.Health = spec.HealthUnknown }),
			},
			"", "new1",
		},
		"stop-first makes the new container before it stops the old": {
			one, []plan.Replica{replica("old", 1, one, named)}, "Create new1", "old1",
		},
		"stop-first takes the old out of the rules first": {
			one, []plan.Replica{replica("old", 1, one, named), replica("new", 1, one, created)}, "", "",
		},
		"then stops it, and doesn't start the new beside it": {
			one, []plan.Replica{replica("old", 1, one), replica("new", 1, one, created)}, "Stop old1", "",
		},
		"and starts when it is gone": {
			one, []plan.Replica{replica("old", 1, one, exited(0, 0), recorded(0)), replica("new", 1, one, created)}, "Remove old1, Start new1", "",
		},
		"a dependency that isn't healthy holds up the start": {
			scene{order: spec.StartFirst, wanted: 1, depends: true, first: true}, nil, "", "",
		},
		"and leaves the old ones of a stop-first service alone": {
			scene{order: spec.StopFirst, wanted: 1, depends: true},
			[]plan.Replica{replica("old", 1, scene{order: spec.StopFirst, wanted: 1, depends: true}, named)}, "", "old1",
		},
		"a stopped service keeps its containers": {
			scene{order: spec.StartFirst, wanted: 1, stopped: true},
			[]plan.Replica{replica("new", 1, scene{order: spec.StartFirst, wanted: 1, stopped: true})}, "Stop new1", "",
		},
		"a link that has gone is made again": {
			two, []plan.Replica{replica("new", 1, two, named), replica("new", 2, two, func(r *plan.Replica) { r.Attached = false })},
			"Create new2", "new1 new2",
		},
		"a lost process is neither used nor replaced": {
			two, []plan.Replica{replica("new", 1, two, named), replica("new", 2, two, func(r *plan.Replica) { r.Phase = spec.PhaseLost })},
			"", "new1",
		},
	} {
		t.Run(name, func(t *testing.T) {
			actions, backends := decide(tc.scene, tc.replicas...)
			if got := strings.Join(actions, ", "); got != tc.actions {
				t.Errorf("actions: %q, want %q", got, tc.actions)
			}
			if got := strings.Join(backends, " "); got != tc.backends {
				t.Errorf("backends: %q, want %q", got, tc.backends)
			}
		})
	}
}

func created(r *plan.Replica) {
	r.Phase, r.Pid, r.StartedAt, r.Health, r.Record.Running = spec.PhaseCreated, 0, time.Time{}, spec.HealthUnknown, false
}

// TestHealthOfWhatIsChecked: that a process runs is no health.
func TestHealthOfWhatIsChecked(t *testing.T) {
	one := scene{order: spec.StartFirst, wanted: 1, first: true}
	for kind, want := range map[spec.ProbeKind]spec.Health{
		spec.ProbeRunning: spec.HealthUnknown, spec.ProbeTCP: spec.HealthHealthy, spec.ProbeExec: spec.HealthHealthy,
	} {
		r := replica("new", 1, one, named, func(r *plan.Replica) { r.Record.Probes = []spec.Probe{{Kind: kind}} })
		p := plan.Make(plan.Desired{Projects: []plan.Project{{
			Record: spec.ProjectRecord{Name: "p", Desired: 2}, Release: release(2, "new", one),
		}}}, plan.Observed{Now: noon, Replicas: []plan.Replica{r}})
		got := p.Status[0].Services[0].Replicas[0]
		if got.Health != want || got.State != spec.StateReady {
			t.Errorf("%s: health %q, %s, want %q, ready", kind, got.Health, got.State, want)
		}
	}
}
