package orchestrator

import (
	"context"
	"strings"
	"testing"

	"dunnage/orchestrator/world"
	"dunnage/spec"
)

// unwrittenEngine says the same of every replica's log writer.
type unwrittenEngine struct {
	*world.World
	writer *spec.LogWriter
}

func (e unwrittenEngine) Instances(ctx context.Context) ([]spec.Instance, error) {
	all, err := e.World.Instances(ctx)
	for i := range all {
		all[i].LogWriter = *e.writer
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
	writer := spec.LogWriter{Trouble: spec.WriterGone}
	s.loop.cfg.Engine = unwrittenEngine{s.w, &writer}
	before, _ := s.loop.events.after(0)
	for range 3 {
		s.loop.Step(t.Context())
	}
	if r := status(t, s, "web").Replicas[0]; r.State != spec.StateReady || !r.Routed || !r.Unwritten || !r.Started.Equal(started) ||
		!strings.Contains(r.Detail, "what it prints is lost") || !strings.Contains(r.Detail, "`dunnage restart -p shop web-1`") {
		t.Errorf("shown: %+v", r)
	}
	writer = spec.LogWriter{} // as after a restart
	s.loop.Step(t.Context())
	if r := status(t, s, "web").Replicas[0]; r.Detail != "" || r.Unwritten {
		t.Errorf("it has another: %+v", r)
	}
	events, _ := s.loop.events.after(uint64(len(before)))
	for trouble, want := range map[spec.WriterTrouble][2]string{
		spec.WriterStopped: {"(process 77) is stopped", "`kill -CONT 77`"},
		spec.WriterStuck:   {"(process 77) doesn't read", "`dunnage restart -p shop web-1`"},
		spec.WriterFails:   {"(process 77) writes nothing", "`dunnage doctor`"},
	} {
		before, _ := s.loop.events.after(0)
		writer = spec.LogWriter{Trouble: trouble, Pid: 77}
		for range 3 {
			s.loop.Step(t.Context())
		}
		if r := status(t, s, "web").Replicas[0]; r.State != spec.StateReady || !r.Unwritten || !strings.Contains(r.Detail, want[0]) || !strings.Contains(r.Detail, want[1]) {
			t.Errorf("shown of one that is %s: %+v", trouble, r)
		}
		if of, _ := s.loop.events.after(uint64(len(before))); len(of) != 1 || of[0].Kind != spec.EventProblem || !strings.Contains(of[0].Message, want[0]) {
			t.Errorf("told of one that is %s: %+v", trouble, of)
		}
	}
	if len(events) != 1 || events[0].Kind != spec.EventProblem || events[0].Replica == "" || !strings.Contains(events[0].Message, "its log writer is gone") {
		t.Errorf("told: %+v", events)
	}
}
