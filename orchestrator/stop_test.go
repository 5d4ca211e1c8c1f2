package orchestrator

import (
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
