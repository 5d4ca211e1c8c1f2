package plan_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// keyed is a release of web, which a new version of "key" replaces, and live, which
// gets it while it runs.
func keyed(number, version int) spec.Release {
	with := func(name string, on spec.OnSecretChange) spec.Service {
		return spec.Service{
			Name: name, Replicas: 1, OnSecretChange: on, Update: spec.UpdatePolicy{Order: spec.StartFirst, Deadline: spec.Duration(time.Minute)},
			Container: spec.Container{Networks: []spec.Attachment{{Name: "default"}}, Secrets: []spec.Secret{{Name: "key", Target: spec.SecretDir + "/key"}}},
		}
	}
	pins := spec.SecretPins{"key": {SecretID: spec.SecretID{Name: "key"}, Version: version}}
	return spec.Release{
		Number: number, Secrets: map[string]spec.SecretPins{"live": pins, "web": pins},
		Project: spec.Project{
			Name: "p", Networks: []spec.Network{{Name: "default"}}, Secrets: []spec.SecretDeclaration{{Name: "key", Store: "key"}},
			Services: []spec.Service{with("live", spec.SecretNone), with("web", spec.SecretRestart)},
		},
	}
}

// A running replica gets new secrets after the replicas that are made for them are
// through, unless there is nothing to lose or to be proved.
func TestDeliverAfterProof(t *testing.T) {
	good, next := keyed(1, 17), keyed(2, 18)
	live, _ := next.Project.Service("live")
	before, after := good.SecretsFingerprint(live), next.SecretsFingerprint(live)
	has := func(fingerprint string) func(*plan.Replica) {
		return func(r *plan.Replica) { r.Delivered = fingerprint }
	}
	old, fresh := member(good, "web", named), member(next, "web", named)
	for name, c := range map[string]struct {
		live     []func(*plan.Replica)
		web      []plan.Replica
		edit     func(*plan.Project)
		delivers bool
	}{
		"none is made yet":         {web: []plan.Replica{old}},
		"one is starting":          {web: []plan.Replica{old, member(next, "web", starting)}},
		"one is ready, not in yet": {web: []plan.Replica{old, member(next, "web")}, delivers: true},
		"one has taken over":       {web: []plan.Replica{fresh}, delivers: true},
		"it has them":              {live: []func(*plan.Replica){has(after)}, web: []plan.Replica{fresh}},
		"it has half of others":    {live: []func(*plan.Replica){has("")}, web: []plan.Replica{old}, delivers: true},
		"it isn't well":            {live: []func(*plan.Replica){unhealthy}, web: []plan.Replica{old}, delivers: true},
		"nobody has looked at it":  {live: []func(*plan.Replica){func(r *plan.Replica) { r.Named, r.Health = false, spec.HealthUnknown }}, web: []plan.Replica{old}},
		"paused":                   {web: []plan.Replica{old}, edit: func(p *plan.Project) { p.Record.Paused = "on request" }},
		"on the way back":          {web: []plan.Replica{old}, edit: func(p *plan.Project) { p.Record.Backward = true }, delivers: true},
		"the first release":        {web: []plan.Replica{member(next, "web", starting)}, edit: func(p *plan.Project) { p.Good, p.Record.Good = nil, 0 }, delivers: true},
		"web is stopped":           {web: []plan.Replica{old}, edit: func(p *plan.Project) { p.Record.Stopped = []string{"web"} }, delivers: true},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			// Its deadline is long over: that it waits is no failure of its own.
			project := plan.Project{Record: spec.ProjectRecord{Name: "p", Desired: 2, Good: 1, Since: noon.Add(-time.Hour)}, Release: next, Good: &good}
			if c.edit != nil {
				c.edit(&project)
			}
			replicas := append(slices.Clone(c.web), member(next, "live", append([]func(*plan.Replica){named, has(before)}, c.live...)...))
			slices.SortFunc(replicas, func(a, b plan.Replica) int { return strings.Compare(a.ID, b.ID) })
			d := plan.Desired{Projects: []plan.Project{project}}
			o := plan.Observed{Now: noon, Replicas: replicas, RulesEqual: true}
			o.Applied = plan.Routes(d, o)
			p := plan.Make(d, o)
			delivers := slices.ContainsFunc(p.Actions, func(a plan.Action) bool { _, ok := a.(plan.Deliver); return ok })
			if delivers != c.delivers {
				t.Errorf("delivers: %t, want %t: %+v", delivers, c.delivers, p.Actions)
			}
			if f := p.Rollout[0].Failed; strings.Contains(f, "new secrets") {
				t.Errorf("failed: %s", f)
			}
		})
	}
}
