package orchestrator

import (
	"context"
	"strings"
	"testing"

	"dunnage/orchestrator/world"
	"dunnage/spec"
)

// oomEngine says the same of every replica's processes.
type oomEngine struct {
	*world.World
	kills *int
}

func (e oomEngine) Instances(ctx context.Context) ([]spec.Instance, error) {
	all, err := e.World.Instances(ctx)
	for i := range all {
		all[i].OOMKills = *e.kills
	}
	return all, err
}

// Processes that are killed for want of memory in a replica that goes on are told of
// once, and not again by the next agent.
func TestOOMIsTold(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	if op := ask(t, s, valid("shop", "fast")); op.State != spec.OperationDone {
		t.Fatalf("%+v", op)
	}
	kills := 0
	s.loop.cfg.Engine = oomEngine{s.w, &kills}
	var since uint64
	tells := func(want ...string) {
		t.Helper()
		for range 3 {
			s.loop.Step(t.Context())
		}
		all := told(s, spec.EventOOM, &since)
		if len(all) != len(want) {
			t.Fatalf("told %+v, want %q", all, want)
		}
		for i, e := range all {
			if e.Project != "shop" || e.Service != "web" || !strings.HasPrefix(e.Message, e.Replica+want[i]) {
				t.Errorf("told %+v, want %q", e, want[i])
			}
		}
	}
	tells()
	kills = 1
	tells(" goes on, but the kernel has killed a process of it for want of memory; ")
	kills = 4
	tells(" goes on, but the kernel has killed 3 processes of it for want of memory; ")
	s.start(0)
	s.loop.cfg.Engine = oomEngine{s.w, &kills}
	since = 0
	tells()
	kills = 5
	tells(" goes on, but the kernel has killed a process of it for want of memory; ")
}
