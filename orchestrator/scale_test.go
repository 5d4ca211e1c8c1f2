package orchestrator

import (
	"testing"
	"time"

	"dunnage/orchestrator/world"
	"dunnage/spec"
)

// A service that is made smaller while one of its replicas is down keeps one
// more in its stead, where that may be, and is done when as many as asked for
// are ready.
func TestScaleDownKeepsTheWell(t *testing.T) {
	for name, tc := range map[string]struct {
		image string
		on    spec.OnUnhealthy
		kill  bool
		state spec.OperationState
		after time.Duration // at most
	}{
		"a spare stays":              {"slow", spec.UnhealthyReplace, true, spec.OperationDone, time.Second},
		"without one it is awaited":  {"slow", spec.UnhealthyRestart, true, spec.OperationDone, 4 * time.Second},
		"what doesn't come back":     {"sickly", spec.UnhealthyKeep, false, spec.OperationFailed, restPatience + time.Second},
		"nothing is to wait for":     {"slow", spec.UnhealthyReplace, false, spec.OperationDone, time.Second},
		"nor where there's no spare": {"slow", spec.UnhealthyRestart, false, spec.OperationDone, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScenario(1, world.Truth)
			defer func() { s.stop() }()
			p := valid("shop", tc.image)
			p.Services[0].Replicas, p.Services[0].Unhealthy = 3, tc.on
			if op := ask(t, s, p); op.State != spec.OperationDone {
				t.Fatalf("%+v", op)
			}
			if tc.kill {
				s.w.Damage(1, 0)
				s.live(100*time.Millisecond, 100*time.Millisecond)
			}
			op, err := request(s, "shop", spec.ChangeRequest{Kind: "scale", Replicas: map[string]int{"web": 2}})
			if err != nil {
				t.Fatal(err)
			}
			op = pass(t, s, op.ID, time.Minute)
			if took := op.Ended.Sub(op.Started); op.State != tc.state || took > tc.after {
				t.Errorf("after %s: %+v", took, op)
			}
			if op.State == spec.OperationDone && s.w.Served("shop", "web") < 2 {
				t.Errorf("%d of 2 serve: %s", s.w.Served("shop", "web"), s.w)
			}
			if s.live(time.Minute, time.Second); len(status(t, s, "web").Replicas) != 2 {
				t.Errorf("%+v", status(t, s, "web").Replicas)
			}
		})
	}
}

// A scale to the numbers that are wanted already does nothing; of a service that
// was stopped, whose replicas nobody awaits, too. After a release that failed it
// is one more try.
func TestScaleToWhatItIs(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	p := valid("shop", "fast")
	p.Services[0].Replicas = 2
	ask(t, s, p)
	same := spec.ChangeRequest{Kind: "scale", Replicas: map[string]int{"web": 2}}
	for _, stop := range []bool{false, true} {
		if stop {
			if _, err := request(s, "shop", spec.ChangeRequest{Kind: "stop"}); err != nil {
				t.Fatal(err)
			}
			s.live(time.Minute, time.Second)
		}
		op, err := request(s, "shop", same)
		if err != nil || op.State != spec.OperationUnchanged || op.Release != 1 || len(op.Services) != 1 || op.Services[0].Change != spec.ChangeNone {
			t.Errorf("stopped %t: %+v, %v", stop, op, err)
		}
	}
	if rs, err := s.loop.Releases(t.Context(), "shop"); err != nil || len(rs) != 1 {
		t.Errorf("%d releases, %v", len(rs), err)
	}
	first := newScenario(2, world.Truth)
	defer func() { first.stop() }()
	p.Services[0].Container.Image = "broken"
	if op := ask(t, first, p); op.State != spec.OperationFailed {
		t.Fatalf("%+v", op)
	}
	if op, err := request(first, "shop", same); err != nil || op.State != spec.OperationRolling || op.Release != 2 {
		t.Errorf("after a failure: %+v, %v", op, err)
	}
}
