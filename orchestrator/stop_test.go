package orchestrator

import (
	"slices"
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

// A stop and a start in a paused rollout bring back what served, and leave it
// paused. So does a boot of the host.
func TestStopAndStartWhilePaused(t *testing.T) {
	for name, c := range map[string]struct {
		image    string // of release 2
		canary   bool
		old, new int // that serve while it is paused
	}{
		"by its failure": {image: "crashing", old: 4},
		"on request":     {image: "slow", old: 2, new: 2},
		"in a trial":     {image: "slow", canary: true, old: 4, new: 2},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScenario(1, world.Truth)
			defer func() { s.stop() }()
			p := valid("shop", "fast")
			web := &p.Services[0]
			web.Replicas, web.Restart.Mode = 4, spec.RestartAlways
			web.Update = spec.UpdatePolicy{Order: spec.StartFirst, Parallelism: 2, Delay: spec.Duration(10 * time.Second), OnFailure: spec.FailurePause}
			if op := ask(t, s, p); op.State != spec.OperationDone {
				t.Fatalf("%+v", op)
			}
			p.Services = slices.Clone(p.Services)
			p.Services[0].Container.Image = c.image
			if c.canary {
				p.Services[0].Canary = &spec.Canary{Replicas: 2}
			}
			op, err := take(t, s, p, spec.Turn{})
			if err != nil {
				t.Fatal(err)
			}
			if op = pass(t, s, op.ID, 5*time.Second); op.State == spec.OperationRolling {
				changed(t, s, spec.ChangeRequest{Kind: "pause"})
			}
			s.live(time.Second, 100*time.Millisecond)
			serve := func(when string, wantOld, wantNew int) {
				t.Helper()
				st, err := s.loop.Status(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				got := map[bool]int{}
				for _, r := range status(t, s, "web").Replicas {
					if r.Routed && r.State == spec.StateReady {
						got[r.Release == 1]++
					}
				}
				if got[true] != wantOld || got[false] != wantNew || st.Projects[0].Paused == "" || !st.Projects[0].Rolling {
					t.Errorf("%s: %d of release 1 and %d of release 2 serve, want %d and %d; paused: %q", when, got[true], got[false], wantOld, wantNew, st.Projects[0].Paused)
				}
			}
			serve("before", c.old, c.new)
			for _, agents := range []int{1, 2} { // the second time another agent starts than has stopped
				if op := changed(t, s, spec.ChangeRequest{Kind: "stop"}); op.State != spec.OperationDone || len(s.w.Running()) > 0 {
					t.Fatalf("stop: %+v; %d run", op, len(s.w.Running()))
				}
				s.live(time.Minute, time.Second)
				serve("stopped", 0, 0)
				if agents == 2 {
					s.start(0)
					s.live(time.Second, time.Second)
				}
				op := changed(t, s, spec.ChangeRequest{Kind: "start"})
				if op.State != spec.OperationDone || op.Ended.Sub(op.Started) > 10*time.Second {
					t.Errorf("start: %+v", op)
				}
				if len(op.Warnings) != 1 || !strings.HasPrefix(op.Warnings[0], "release 2 stays paused (") {
					t.Errorf("start says %q", op.Warnings)
				}
				serve("started", c.old, c.new)
				s.live(time.Minute, time.Second)
				serve("a minute later", c.old, c.new)
			}
			const reboot = 4
			s.stop()
			s.w.Damage(reboot, 0)
			s.start(0)
			s.live(time.Minute, time.Second)
			serve("after a boot of the host", c.old, c.new)
			if c.image == "crashing" {
				return
			}
			op = changed(t, s, spec.ChangeRequest{Kind: "resume"})
			if c.canary {
				op = changed(t, s, spec.ChangeRequest{Kind: "promote"})
			}
			if op.State != spec.OperationDone || status(t, s, "web").Ready != 4 || s.w.Served("shop", "web") != 4 {
				t.Errorf("resumed: %+v", op)
			}
		})
	}
}
