package plan_test

import (
	"fmt"
	"testing"
	"time"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// noSpace is one that hasn't come into being, or hasn't started, again and again.
func noSpace(started bool) func(*plan.Replica) {
	return func(r *plan.Replica) {
		r.Phase, r.Pid, r.StartedAt, r.Exists, r.Record.Running = "", 0, time.Time{}, started, started
		if started {
			r.Phase = spec.PhaseCreated
		}
		r.Error, r.Errors, r.ErrorAt, r.NoSpace = "no space", 9, noon.Add(-time.Minute), true
	}
}

// TestNoSpace: what the disk had no space for is tried again, a start without an
// exit of the program, and doesn't fail the release before its deadline.
func TestNoSpace(t *testing.T) {
	s := rollout{}.scene()
	for _, tc := range []struct {
		started bool
		since   time.Duration
		want    string
		failed  bool
	}{
		{false, time.Minute, "Create new1", false},
		{true, time.Minute, "Start new1", false},
		{true, time.Hour, "Start new1", true},
	} {
		replicas := append(olds(1, 2, 3), replica("new", 1, s, noSpace(tc.started)), replica("new", 2, s), replica("new", 3, s))
		actions, _, verdict, _ := rollout{since: tc.since}.decide(replicas...)
		if text := fmt.Sprint(actions); text != tc.want || (verdict.Failed != "") != tc.failed {
			t.Errorf("%+v: %q, %+v", tc, text, verdict)
		}
	}
}
