package plan_test

import (
	"slices"
	"testing"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// TestLimit: other limits are set on the replicas that run, not by new ones,
// and the release waits for that.
func TestLimit(t *testing.T) {
	limits := spec.Limits{Memory: 64 << 20}
	old := release(1, "web", scene{wanted: 2})
	next := release(2, "web", scene{wanted: 2})
	next.Project.Services[0].Limits = limits
	look := func(edits ...func(*plan.Replica)) plan.Plan {
		replicas := []plan.Replica{
			replica("web", 1, scene{wanted: 2}, append(edits, named)...),
			replica("web", 2, scene{wanted: 2}, named, func(r *plan.Replica) { r.Limits = limits.Fingerprint() }),
		}
		project := plan.Project{Record: spec.ProjectRecord{Name: "p", Desired: 2, Good: 1, Since: noon}, Release: next, Good: &old}
		for i := range replicas {
			replicas[i].Names = plan.Fingerprint(plan.Endpoint(plan.Desired{}, project, next.Project.Services[0], replicas[i].Record).Names)
		}
		d := plan.Desired{Projects: []plan.Project{project}}
		o := plan.Observed{Now: noon, Replicas: replicas, RulesEqual: true}
		o.Applied = plan.Routes(d, o)
		return plan.Make(d, o)
	}
	one := replica("web", 1, scene{wanted: 2}).ReplicaKey

	p := look()
	if len(p.Actions) != 1 || p.Actions[0].Replica() != one {
		t.Errorf("actions: %+v", p.Actions)
	} else if a, ok := p.Actions[0].(plan.Limit); !ok || a.Limits.Memory != limits.Memory {
		t.Errorf("action: %+v", p.Actions[0])
	}
	if r := p.Rollout[0]; r.Converged || r.Failed != "" {
		t.Errorf("before: %+v", r)
	}

	p = look(func(r *plan.Replica) { r.Limits = limits.Fingerprint() })
	if r := p.Rollout[0]; len(p.Actions) != 0 || !r.Converged {
		t.Errorf("after: %+v %+v", p.Actions, r)
	}

	refused := func(what string) func(*plan.Replica) {
		return func(r *plan.Replica) { r.Error, r.Errors, r.ErrorAt, r.Refused = "too low", 3, noon, what }
	}
	p = look(refused(limits.Fingerprint()))
	if r := p.Rollout[0]; r.Converged || r.Failed != one.ID+": too low" {
		t.Errorf("refused: %+v", r)
	}

	p = look(refused("others"))
	isLimit := func(a plan.Action) bool { _, ok := a.(plan.Limit); return ok }
	if r := p.Rollout[0]; r.Failed != "" || !slices.ContainsFunc(p.Actions, isLimit) {
		t.Errorf("others were refused before: %+v %+v", p.Actions, r)
	}
}
