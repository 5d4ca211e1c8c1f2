package orchestrator

import (
	"context"
	"strings"
	"testing"

	"dunnage/orchestrator/world"
	"dunnage/spec"
)

// hungEngine says of every replica that its shim hangs.
type hungEngine struct {
	*world.World
	shim *int
}

func (e hungEngine) Instances(ctx context.Context) ([]spec.Instance, error) {
	all, err := e.World.Instances(ctx)
	for i := range all {
		all[i].Hung = *e.shim
	}
	return all, err
}

// A shim that hangs is told of once, shown with its replica, which serves on, and
// told of when it answers again.
func TestHungShimIsTold(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	if op := ask(t, s, valid("shop", "fast")); op.State != spec.OperationDone {
		t.Fatalf("%+v", op)
	}
	shim := 4711
	s.loop.cfg.Engine = hungEngine{s.w, &shim}
	before, _ := s.loop.events.after(0)
	for range 3 {
		s.loop.Step(t.Context())
	}
	web := status(t, s, "web")
	if r := web.Replicas[0]; r.State != spec.StateReady || !r.Routed || !strings.Contains(r.Detail, "its shim (process 4711) doesn't answer") || !strings.Contains(r.Detail, "`dunnage restart -p shop web-1`") {
		t.Errorf("shown: %+v", r)
	}
	shim = 0
	s.loop.Step(t.Context())
	if r := status(t, s, "web").Replicas[0]; r.Detail != "" {
		t.Errorf("it answers again: %+v", r)
	}
	events, _ := s.loop.events.after(uint64(len(before)))
	var told []string
	for _, e := range events {
		told = append(told, e.Message)
	}
	if len(told) != 2 || !strings.Contains(told[0], "doesn't answer containerd; it serves on") || !strings.HasSuffix(told[1], "answers again") {
		t.Errorf("told: %q", told)
	}
}
