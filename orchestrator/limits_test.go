package orchestrator

import (
	"strings"
	"testing"

	"dunnage/orchestrator/world"
	"dunnage/spec"
)

// TestLimitsOfRunningReplicas: a deploy that changes limits alone restarts
// nothing; one whose limits can't be set says so and goes back.
func TestLimitsOfRunningReplicas(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	limited := func(pids int64) spec.Project {
		p := one("shop", "fast")
		p.Services[0].Limits.Pids = pids
		return p
	}
	if op := ask(t, s, limited(100)); op.State != spec.OperationDone {
		t.Fatalf("%+v", op)
	}
	before, err := s.w.Instances(t.Context())
	if err != nil || len(before) != 1 {
		t.Fatal(before, err)
	}
	for _, c := range []struct {
		pids, inForce int64
		state         spec.OperationState
		cause         string
	}{
		{200, 200, spec.OperationDone, ""},
		{201, 200, spec.OperationRolledBack, "too low"}, // the world has more than an odd number
		{0, 0, spec.OperationDone, ""},
	} {
		op := ask(t, s, limited(c.pids))
		if op.State != c.state || !strings.Contains(op.Cause, c.cause) {
			t.Errorf("%d: %+v", c.pids, op)
		}
		now, err := s.w.Instances(t.Context())
		if err != nil || len(now) != 1 || now[0].ID != before[0].ID || !now[0].StartedAt.Equal(before[0].StartedAt) {
			t.Fatalf("%d: restarted: %+v, %v", c.pids, now, err)
		}
		if want := (spec.Limits{Pids: c.inForce}).Fingerprint(); now[0].Limits != want {
			t.Errorf("%d: %q are in force, want %q", c.pids, now[0].Limits, want)
		}
	}
}
