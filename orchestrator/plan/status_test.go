package plan_test

import (
	"testing"
	"time"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// A status counts the replicas on trial for as long as the trial lasts.
func TestStatusOfATrial(t *testing.T) {
	byHand := rollout{service: spec.Service{Canary: &spec.Canary{Replicas: 1}}}
	promoted := byHand
	promoted.promoted = true
	for name, tc := range map[string]struct {
		rollout rollout
		edit    func(*plan.Replica)
		want    int
	}{
		"not ready yet": {byHand, starting, 0},
		"on trial":      {byHand, routed(time.Second), 1},
		"promoted":      {promoted, routed(time.Second), 0},
		"no canary":     {rollout{}, routed(time.Second), 0},
	} {
		_, _, _, p := tc.rollout.decide(append(olds(1, 2, 3), replica("new", 1, rollout{}.scene(), tc.edit))...)
		if got := p.Status[0].Services[0].Trial; got != tc.want {
			t.Errorf("%s: %d, want %d", name, got, tc.want)
		}
	}
}
