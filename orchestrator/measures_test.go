package orchestrator

import (
	"testing"
	"time"

	"dunnage/orchestrator/plan"
	"dunnage/orchestrator/world"
	"dunnage/spec"
)

func TestMeasures(t *testing.T) {
	m := newMeasures()
	began := time.Unix(1000, 0)
	end := func(project string, state spec.OperationState) {
		m.ended(spec.Operation{Project: project, Kind: "deploy", State: state, Started: began, Ended: began.Add(3 * time.Second)}, func(p string) bool { return p == "shop" })
	}
	end("shop", spec.OperationDone)
	end("shop", spec.OperationDone)
	for _, never := range []string{"a", "b", "c"} { // deployed: names must not add up
		end(never, spec.OperationFailed)
	}
	m.repaired([]spec.Damage{{Kind: spec.DamageJump}, {Kind: spec.DamageJump}, {Kind: spec.DamageChain}})
	took := span{began, began.Add(30 * time.Millisecond)}
	m.did(outcome{action: plan.Apply{}, took: took}, 2)
	m.did(outcome{action: plan.Apply{}, took: took}, 2) // nothing had to be written
	m.did(outcome{action: plan.Create{}, took: took, err: spec.ErrUnavailable}, 2)
	m.looked(time.Millisecond, nil)
	m.looked(time.Second, spec.ErrUnavailable)

	c := m.c
	if n := c.Operations[spec.OperationCount{Project: "shop", Kind: "deploy", Outcome: spec.OperationDone}]; n != 2 || len(c.Operations) != 2 {
		t.Errorf("operations %v", c.Operations)
	}
	if h := c.Durations["deploy"]; h.Count != 5 || h.Counts[2] != 5 {
		t.Errorf("durations %+v", h)
	}
	if c.Repairs[spec.DamageJump] != 1 || c.Repairs[spec.DamageChain] != 1 {
		t.Errorf("repairs %v", c.Repairs)
	}
	if c.Swap.Count != 1 || c.Actions[spec.ActionCount{Action: "apply"}].Count != 2 || c.Actions[spec.ActionCount{Action: "create", Failed: true}].Count != 1 {
		t.Errorf("swaps %+v, actions %v", c.Swap, c.Actions)
	}
	if c.Look.Count != 1 || c.Unseeing != 1 {
		t.Errorf("looks %+v, %d failed", c.Look, c.Unseeing)
	}
}

// One who asks before an operation ends sees its count grow from zero.
func TestWhatIsAtWorkHasACount(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	op := s.loop.ops.begin("shop", "deploy", "", spec.OperationPulling)
	done := spec.OperationCount{Project: "shop", Kind: "deploy", Outcome: spec.OperationDone}
	if n, found := s.loop.Counted().Operations[done]; n != 0 || !found {
		t.Errorf("at work: %d, %t", n, found)
	}
	s.loop.end(op, spec.OperationDone, "", nil)
	if c := s.loop.Counted().Operations; c[done] != 1 || len(c) != 1 {
		t.Errorf("afterwards: %v", c)
	}
}
