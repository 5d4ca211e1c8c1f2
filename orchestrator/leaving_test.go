package orchestrator

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"dunnage/orchestrator/world"
	"dunnage/spec"
)

// A service that a release removes serves until that has converged: one that
// fails takes nothing away.
func TestRemovedServiceServesUntilTheReleaseHasConverged(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	two := valid("shop", "slow")
	two.Services[0].Update.OnFailure = spec.FailureRollback
	side := two.Services[0]
	side.Name = "side"
	two.Services = []spec.Service{side, two.Services[0]}
	if op := ask(t, s, two); op.State != spec.OperationDone {
		t.Fatalf("%+v", op)
	}
	replica := status(t, s, "side").Replicas[0].Replica
	remove := func(image string) spec.Operation {
		t.Helper()
		var op spec.Operation
		var err error
		s.answer(func(ctx context.Context) {
			op, err = s.loop.Deploy(ctx, spec.DeployRequest{Project: valid("shop", image), RemoveOrphans: true})
		})
		if err != nil {
			t.Fatal(err)
		}
		for !op.State.Ended() {
			op = pass(t, s, op.ID, 100*time.Millisecond)
			if !op.State.Ended() && s.w.Served("shop", "side") != 1 {
				t.Fatalf("side doesn't serve: %+v\n%s", op, s.w)
			}
		}
		return op
	}
	if op := remove("crashing"); op.State != spec.OperationRolledBack || !slices.Contains(s.w.Running(), replica) {
		t.Errorf("a release that fails: %+v", op)
	}
	if log := s.w.String(); strings.Contains(log, "signal "+replica) {
		t.Errorf("side was touched: %s", log)
	}
	op := remove("fast")
	i := slices.IndexFunc(op.Services, func(o spec.ServiceOutcome) bool { return o.Name == "side" })
	if op.State != spec.OperationDone || i < 0 || op.Services[i].Change != spec.ChangeRemove || op.Services[i].Wanted != 0 {
		t.Errorf("one that doesn't: %+v", op)
	}
	s.live(time.Minute, time.Second)
	if bad := s.verdict(); bad != "" || s.w.Served("shop", "side") != 0 || len(s.w.Running()) != 1 {
		t.Errorf("%s\n%s", bad, s.w)
	}
}
