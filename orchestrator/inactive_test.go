package orchestrator

import (
	"context"
	"slices"
	"testing"
	"time"

	"dunnage/orchestrator/world"
	"dunnage/spec"
)

// deployRequest makes a deploy of r, lets the world live and returns the operation.
func deployRequest(t *testing.T, s *scenario, r spec.DeployRequest) spec.Operation {
	t.Helper()
	var op spec.Operation
	var err error
	s.answer(func(ctx context.Context) { op, err = s.loop.Deploy(ctx, r) })
	if err != nil {
		t.Fatal(err)
	}
	return pass(t, s, op.ID, time.Minute)
}

// A service whose profile isn't active keeps running as it is, and once it is
// stopped it stays so.
func TestInactiveServiceStaysAsItIs(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	both := valid("shop", "fast")
	debug := both.Services[0]
	debug.Name = "debug"
	both.Services = []spec.Service{debug, both.Services[0]}
	if op := deployRequest(t, s, spec.DeployRequest{Project: both}); op.State != spec.OperationDone {
		t.Fatalf("with its profile: %+v", op)
	}
	without := spec.DeployRequest{Project: valid("shop", "fast"), Inactive: []string{"debug"}, RemoveOrphans: true}
	want := "service debug: its profile isn't active: it keeps running as it is; `dunnage stop -p shop debug` stops it"
	op := deployRequest(t, s, without)
	if op.State != spec.OperationUnchanged || !slices.Equal(op.Warnings, []string{want}) {
		t.Errorf("without it: %+v", op)
	}
	before := s.w.Running()
	without.Force = true
	op = deployRequest(t, s, without)
	if op.State != spec.OperationDone || changeOf(op, "debug") != spec.ChangeNone || changeOf(op, "web") != spec.ChangeReplace {
		t.Errorf("forced: %+v", op)
	}
	if after := s.w.Running(); len(after) != 2 || !slices.Contains(before, after[0]) {
		t.Errorf("%v ran, then %v", before, after)
	}
	var err error
	s.answer(func(ctx context.Context) {
		op, err = s.loop.Change(ctx, "shop", spec.ChangeRequest{Kind: "stop", Services: []string{"debug"}})
	})
	if err != nil {
		t.Fatal(err)
	}
	pass(t, s, op.ID, time.Minute)
	op = deployRequest(t, s, without)
	if len(op.Warnings) > 0 || len(s.w.Running()) != 1 {
		t.Errorf("once it is stopped: %v runs; %+v", s.w.Running(), op)
	}
	if op = deployRequest(t, s, spec.DeployRequest{Project: both}); op.State != spec.OperationDone || len(s.w.Running()) != 2 {
		t.Errorf("with its profile again: %v runs; %+v", s.w.Running(), op)
	}
}

// changeOf is what the operation did to a service.
func changeOf(op spec.Operation, service string) spec.Change {
	for _, s := range op.Services {
		if s.Name == service {
			return s.Change
		}
	}
	return ""
}
