package orchestrator

import (
	"strings"
	"testing"
	"time"

	"dunnage/orchestrator/world"
	"dunnage/spec"
)

// withWorker is a project of two services; env is a variable of web.
func withWorker(worker, web, env string) spec.Project {
	p := valid("shop", web)
	p.Services[0].Container.Environment = []string{env}
	other := p.Services[0]
	other.Name, other.Container.Image, other.Container.Environment = "worker", worker, nil
	p.Services = append(p.Services, other)
	return p
}

// outcomeOf is what an operation says of a service.
func outcomeOf(t *testing.T, op spec.Operation, service string) spec.ServiceOutcome {
	t.Helper()
	for _, s := range op.Services {
		if s.Name == service {
			return s
		}
	}
	t.Fatalf("nothing of %s: %+v", service, op)
	return spec.ServiceOutcome{}
}

// Before any release has converged, one is judged by what it changes: a service that
// failed the release before, and that it leaves as it is, neither fails nor delays it,
// and its end says so.
func TestDeployBesideWhatFailed(t *testing.T) {
	const before = "was failing before this release, which leaves it as it is: "
	for _, bad := range []string{"broken", "crashing"} {
		s := newScenario(1, world.Truth)
		if op := ask(t, s, withWorker(bad, "fast", "V=1")); op.State != spec.OperationFailed || !strings.HasPrefix(op.Cause, "shop-worker-") {
			t.Fatalf("%s: the first: %+v", bad, op)
		}
		op := ask(t, s, withWorker(bad, "fast", "V=2"))
		worker := outcomeOf(t, op, "worker")
		if op.State != spec.OperationDone || outcomeOf(t, op, "web").Ready != 1 || worker.Ready != 0 || !strings.HasPrefix(worker.Detail, before+"shop-worker-") {
			t.Errorf("%s: %+v", bad, op)
		}
		if took := op.Ended.Sub(op.Started); took > restPatience+5*time.Second {
			t.Errorf("%s: took %s", bad, took)
		}
		if r, _ := newest(t, s); r.Outcome != spec.OperationDone || r.Commits == 0 {
			t.Errorf("%s: receipt %s", bad, briefly(r))
		}
		// On what has converged so, it is the same, and what is changed fails the release.
		if op := ask(t, s, withWorker(bad, "slow", "V=2")); op.State != spec.OperationDone || !strings.HasPrefix(outcomeOf(t, op, "worker").Detail, before) {
			t.Errorf("%s: the third: %+v", bad, op)
		}
		if op := ask(t, s, withWorker(bad, "crashing", "V=2")); op.State != spec.OperationRolledBack || !strings.HasPrefix(op.Cause, "shop-web-") || !strings.HasSuffix(op.Cause, "release 3 is back") {
			t.Errorf("%s: one that fails itself: %+v", bad, op)
		}
		if op := ask(t, s, withWorker("fast", "slow", "V=2")); op.State != spec.OperationDone || outcomeOf(t, op, "worker").Ready != 1 {
			t.Errorf("%s: one that mends it: %+v", bad, op)
		}
		s.stop()
	}
}

// What failed is judged nevertheless where the release asks for nothing else, changes
// it, or changes what waits for it; what it cures, it waits for.
func TestDeployOfWhatFailed(t *testing.T) {
	waiting := func(p spec.Project) spec.Project {
		p.Services[0].DependsOn = []spec.Dependency{{Service: "worker", Condition: spec.DependHealthy}}
		return p
	}
	for name, c := range map[string]struct{ first, second spec.Project }{
		"again":      {withWorker("broken", "fast", "V=1"), withWorker("broken", "fast", "V=1")},
		"another":    {withWorker("broken", "fast", "V=1"), withWorker("crashing", "fast", "V=1")},
		"waits":      {waiting(withWorker("broken", "fast", "V=1")), waiting(withWorker("broken", "fast", "V=2"))},
		"both":       {withWorker("broken", "broken", "V=1"), withWorker("broken", "broken", "V=2")},
		"not before": {withWorker("fast", "broken", "V=1"), withWorker("crashing", "fast", "V=1")},
	} {
		s := newScenario(1, world.Truth)
		for i, p := range []spec.Project{c.first, c.second} {
			if op := ask(t, s, p); op.State != spec.OperationFailed || op.Release != i+1 {
				t.Errorf("%s: release %d: %+v", name, i+1, op)
			}
		}
		if op := ask(t, s, withWorker("fast", "fast", "V=3")); op.State != spec.OperationDone || outcomeOf(t, op, "worker").Ready != 1 {
			t.Errorf("%s: the cure: %+v", name, op)
		}
		s.stop()
	}
}
