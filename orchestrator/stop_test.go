package orchestrator

import (
	"strings"
	"testing"
	"time"

	"dunnage/orchestrator/world"
	"dunnage/spec"
)

// Who stops or starts a service waits for that one, not for a neighbour that
// dies again and again.
func TestStopWaitsForItsServicesOnly(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	p := valid("shop", "fast")
	mad := p.Services[0]
	mad.Name, mad.Container.Image = "mad", "crashing"
	p.Services = append([]spec.Service{mad}, p.Services...)
	ask(t, s, p)
	for _, kind := range []string{"stop", "start"} {
		op, err := request(s, "shop", spec.ChangeRequest{Kind: kind, Services: []string{"web"}})
		if err != nil {
			t.Fatal(err)
		}
		if op = pass(t, s, op.ID, time.Minute); op.State != spec.OperationDone {
			t.Errorf("%s: %+v", kind, op)
		}
	}
}

// A restart is one that nobody asked for: a stop and a start make none.
func TestStopAndStartIsNoRestart(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	ask(t, s, valid("shop", "fast"))
	restarts := func(want int, after string) {
		t.Helper()
		s.live(time.Second, 100*time.Millisecond)
		if got := status(t, s, "web").Replicas[0]; got.Restarts != want || got.State != spec.StateReady {
			t.Errorf("after %s: %s with %d restarts, want %d", after, got.State, got.Restarts, want)
		}
	}
	s.w.Damage(1, 0)
	restarts(1, "its death")
	for _, kind := range []string{"stop", "start"} {
		op, err := request(s, "shop", spec.ChangeRequest{Kind: kind})
		if err != nil {
			t.Fatal(err)
		}
		pass(t, s, op.ID, time.Minute)
	}
	restarts(1, "stop and start")
	s.w.Damage(1, 0)
	restarts(2, "another death")
}

// What failed again and again is tried at once when somebody asks for it again,
// for he may have put right what it failed of.
func TestChangeClearsBackoff(t *testing.T) {
	for _, kind := range []string{"down", "start"} {
		t.Run(kind, func(t *testing.T) {
			s := newScenario(1, world.Truth)
			defer func() { s.stop() }()
			ask(t, s, valid("shop", "slow"))
			change := func(kind string, patience time.Duration) spec.Operation {
				op, err := request(s, "shop", spec.ChangeRequest{Kind: kind})
				if err != nil {
					t.Fatal(err)
				}
				return pass(t, s, op.ID, patience)
			}
			if kind == "start" {
				change("stop", time.Minute)
			}
			change(kind, 0)
			if kind == "down" { // as far as its signal
				s.loop.Step(t.Context())
				s.loop.Step(t.Context())
			}
			s.w.Restart(0, false, 1) // every call fails, as on a full disk
			s.live(2*time.Minute, time.Second)
			s.w.Restart(0, false, 0)
			if op := change(kind, 3*time.Second); op.State != spec.OperationDone {
				t.Errorf("%+v\n%s", op, s.w)
			}
		})
	}
}

// What depends on others stops before them, whole or in part.
func TestDependentsStopFirst(t *testing.T) {
	for kind, services := range map[string][]string{"down": nil, "stop": {"db", "web"}} {
		for image, last := range map[string]string{"slow": "exits with 0", "stubborn": "exits with 137"} {
			t.Run(kind+" "+image, func(t *testing.T) {
				s := newScenario(1, world.Truth)
				defer func() { s.stop() }()
				p := valid("shop", image)
				p.Services[0].Container.StopGrace = spec.Duration(2 * time.Second)
				db := p.Services[0]
				db.Name, db.Ports = "db", nil
				p.Services[0].DependsOn = []spec.Dependency{{Service: "db", Condition: spec.DependStarted}}
				p.Services[0].Replicas = 2
				p.Services = []spec.Service{db, p.Services[0]}
				if op := ask(t, s, p); op.State != spec.OperationDone {
					t.Fatalf("%+v", op)
				}
				op, err := request(s, "shop", spec.ChangeRequest{Kind: kind, Services: services})
				if err != nil {
					t.Fatal(err)
				}
				if op = pass(t, s, op.ID, time.Minute); op.State != spec.OperationDone || op.Ended.Sub(op.Started) > 10*time.Second {
					t.Errorf("%+v", op)
				}
				log := s.w.String()
				before, after, stopped := strings.Cut(log, "signal shop-db-")
				if !stopped || strings.Count(before, last) != 2 || strings.Count(after, last) != 1 {
					t.Errorf("db isn't stopped after both of web: %s", log)
				}
			})
		}
	}
}
