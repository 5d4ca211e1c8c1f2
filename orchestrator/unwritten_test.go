package orchestrator

import (
	"context"
	"strings"
	"testing"

	"dunnage/orchestrator/world"
	"dunnage/spec"
)

// unwrittenEngine says of every replica that its log writer is gone.
type unwrittenEngine struct {
	*world.World
	gone *bool

	stopped, stuck *int // the pid of its log writer
}

func (e unwrittenEngine) Instances(ctx context.Context) ([]spec.Instance, error) {
	all, err := e.World.Instances(ctx)
	for i := range all {
		all[i].Unwritten, all[i].StoppedWriter, all[i].StuckWriter = *e.gone, *e.stopped, *e.stuck
	}
	return all, err
}

// A log writer that is gone is told of once and shown with its replica, which
// serves on and isn't restarted.
func TestUnwrittenIsTold(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	if op := ask(t, s, valid("shop", "fast")); op.State != spec.OperationDone {
		t.Fatalf("%+v", op)
	}
	started := status(t, s, "web").Replicas[0].Started
	gone, stopped, stuck := true, 0, 0
	s.loop.cfg.Engine = unwrittenEngine{s.w, &gone, &stopped, &stuck}
	before, _ := s.loop.events.after(0)
	for range 3 {
		s.loop.Step(t.Context())
	}
	if r := status(t, s, "web").Replicas[0]; r.State != spec.StateReady || !r.Routed || !r.Unwritten || !r.Started.Equal(started) ||
		!strings.Contains(r.Detail, "what it prints is lost") || !strings.Contains(r.Detail, "`dunnage restart web-1`") {
		t.Errorf("shown: %+v", r)
	}
	gone = false // as after a restart
	s.loop.Step(t.Context())
	if r := status(t, s, "web").Replicas[0]; r.Detail != "" || r.Unwritten {
		t.Errorf("it has another: %+v", r)
	}
	events, _ := s.loop.events.after(uint64(len(before)))
	stopped = 77
	for range 3 {
		s.loop.Step(t.Context())
	}
	if r := status(t, s, "web").Replicas[0]; r.State != spec.StateReady || !r.Unwritten || !strings.Contains(r.Detail, "`kill -CONT 77`") {
		t.Errorf("shown of a stopped one: %+v", r)
	}
	if of, _ := s.loop.events.after(uint64(len(before) + len(events))); len(of) != 1 || of[0].Kind != spec.EventProblem || !strings.Contains(of[0].Message, "(process 77) is stopped") {
		t.Errorf("told of a stopped one: %+v", of)
	}
	before, _ = s.loop.events.after(0)
	stopped, stuck = 0, 78
	for range 3 {
		s.loop.Step(t.Context())
	}
	if r := status(t, s, "web").Replicas[0]; r.State != spec.StateReady || !r.Unwritten || !strings.Contains(r.Detail, "`dunnage restart web-1`") {
		t.Errorf("shown of a stuck one: %+v", r)
	}
	if of, _ := s.loop.events.after(uint64(len(before))); len(of) != 1 || of[0].Kind != spec.EventProblem || !strings.Contains(of[0].Message, "(process 78) doesn't read") {
		t.Errorf("told of a stuck one: %+v", of)
	}
	if len(events) != 1 || events[0].Kind != spec.EventProblem || events[0].Replica == "" || !strings.Contains(events[0].Message, "its log writer is gone") {
		t.Errorf("told: %+v", events)
	}
}
