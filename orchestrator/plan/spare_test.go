package plan_test

import (
	"testing"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// TestSpareBesideAnOldOne: replicas that fall sick before the last old one was
// gone get their spare all the same.
func TestSpareBesideAnOldOne(t *testing.T) {
	before, after := pair(1, "vpn1", "app1"), pair(2, "vpn2", "app1")
	sick := member(after, "vpn", func(r *plan.Replica) { r.Health = spec.HealthUnhealthy })
	d := plan.Desired{Projects: []plan.Project{{Record: spec.ProjectRecord{Name: "p", Desired: 2, Good: 2}, Release: after, Good: &after}}}
	rs := []plan.Replica{member(before, "vpn", named), sick}
	if rs[1].ID < rs[0].ID {
		rs[0], rs[1] = rs[1], rs[0]
	}
	for _, a := range plan.Make(d, plan.Observed{Now: noon, Replicas: rs, RulesEqual: true}).Actions {
		if c, ok := a.(plan.Create); ok && c.Key.Service == "vpn" && c.Key.Number == 2 {
			return
		}
	}
	t.Error("no spare is made")
}
