package plan_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// rollout is an update of service "web" from three old to three new replicas.
type rollout struct {
	service  spec.Service // policies
	paused   string
	promoted bool
	backward bool
	since    time.Duration // ago
}

func (r rollout) scene() scene { return scene{order: spec.StartFirst, wanted: 3} }

// decide plans the rollout and returns the actions, the backends with their
// weights, and the verdict.
func (r rollout) decide(replicas ...plan.Replica) (actions, backends string, verdict plan.Rollout, p plan.Plan) {
	s := r.scene()
	good, next := release(1, "old", s), release(2, "new", s)
	svc := &next.Project.Services[0]
	svc.Update, svc.Rollback, svc.Canary, svc.Ramp = r.service.Update, r.service.Rollback, r.service.Canary, r.service.Ramp
	if svc.Update.Order == "" {
		svc.Update.Order = spec.StartFirst
	}
	record := spec.ProjectRecord{
		Name: "p", Desired: 2, Good: 1, Since: noon.Add(-r.since), Paused: r.paused, Backward: r.backward,
		Addresses: []spec.ServiceLease{{Service: "web", Network: "p_default", Addr: netip.MustParseAddr("10.9.1.1")}},
	}
	if r.promoted {
		record.Promoted = 2
	}
	project := plan.Project{Record: record, Release: next, Good: &good}
	for i := range replicas {
		replicas[i].Names = plan.Fingerprint(plan.Endpoint(plan.Desired{}, project, *svc, replicas[i].Record).Names)
	}
	slices.SortFunc(replicas, func(a, b plan.Replica) int { return strings.Compare(a.ID, b.ID) })
	d := plan.Desired{Projects: []plan.Project{project}}
	o := plan.Observed{Now: noon, Replicas: replicas, RulesEqual: true}
	o.Applied = plan.Routes(d, o)
	p = plan.Make(d, o)
	var did, routed []string
	for _, a := range p.Actions {
		did = append(did, strings.TrimPrefix(fmt.Sprintf("%T", a), "plan.")+" "+label(a.Replica(), s))
	}
	for _, b := range p.Routing.Services[0].Backends {
		i := slices.IndexFunc(replicas, func(x plan.Replica) bool { return x.ID == b.Replica })
		text := label(replicas[i].ReplicaKey, s)
		if b.Weight > 0 {
			text += fmt.Sprintf("*%d", b.Weight)
		}
		routed = append(routed, text)
	}
	slices.Sort(did)
	slices.Sort(routed)
	if len(p.Rollout) > 0 {
		verdict = p.Rollout[0]
	}
	return strings.Join(did, ", "), strings.Join(routed, " "), verdict, p
}

// left is a replica of an earlier rollout that was stopped when it went.
func left(r *plan.Replica) {
	exited(0, time.Minute)(r)
	recorded(0)(r)
	r.Record.Requested = true
}

// routed says for how long a rule has named the replica.
func routed(ago time.Duration) func(*plan.Replica) {
	return func(r *plan.Replica) { r.Named, r.RoutedSince = true, noon.Add(-ago) }
}

func ran(d time.Duration) func(*plan.Replica) {
	return func(r *plan.Replica) { r.StartedAt = noon.Add(-d) }
}

func unhealthy(r *plan.Replica) { r.Health, r.Detail = spec.HealthUnhealthy, "no answer" }

func crashed(r *plan.Replica) {
	exited(1, 0)(r)
	recorded(1)(r)
	r.Record.Exit.At = noon.Add(-time.Millisecond)
}

// olds are old replicas that carry the service.
func olds(numbers ...int) []plan.Replica {
	var out []plan.Replica
	for _, n := range numbers {
		out = append(out, replica("old", n, rollout{}.scene(), routed(time.Hour)))
	}
	return out
}

func TestRollout(t *testing.T) {
	fresh := func(n int, edits ...func(*plan.Replica)) plan.Replica {
		return replica("new", n, rollout{}.scene(), edits...)
	}
	oneByOne := rollout{service: spec.Service{Update: spec.UpdatePolicy{Parallelism: 1}}, since: time.Minute}
	delayed := rollout{service: spec.Service{Update: spec.UpdatePolicy{Parallelism: 1, Delay: spec.Duration(10 * time.Second)}}}
	watched := rollout{service: spec.Service{Update: spec.UpdatePolicy{Monitor: spec.Duration(20 * time.Second)}}, since: time.Minute}
	canary := rollout{service: spec.Service{Canary: &spec.Canary{Replicas: 1, For: spec.Duration(time.Minute), Weight: 10}}}
	byHand := rollout{since: time.Minute, service: spec.Service{Canary: &spec.Canary{Replicas: 1}}}
	promoted := byHand
	promoted.promoted = true
	paused := oneByOne
	paused.paused = "on request"
	lenient := rollout{service: spec.Service{Update: spec.UpdatePolicy{MaxFailureRatio: 0.34}}, since: time.Minute}
	stopping := rollout{service: spec.Service{Update: spec.UpdatePolicy{Order: spec.StopFirst, Parallelism: 1}}}
	back := rollout{backward: true, service: spec.Service{Rollback: &spec.UpdatePolicy{Order: spec.StartFirst, Parallelism: 2}}}
	slow := rollout{since: 11 * time.Minute}
	ramped := rollout{service: spec.Service{Ramp: spec.Duration(10 * time.Second)}}

	for name, tc := range map[string]struct {
		rollout  rollout
		replicas []plan.Replica
		actions  string
		backends string
		failed   string
	}{
		"one at a time starts one":            {oneByOne, olds(1, 2, 3), "Create new1", "old1 old2 old3", ""},
		"and waits for it":                    {oneByOne, append(olds(1, 2, 3), fresh(1, starting)), "", "old1 old2 old3", ""},
		"then it takes its counterpart's":     {oneByOne, append(olds(1, 2, 3), fresh(1)), "Create new2", "new1 old2 old3", ""},
		"which may stop":                      {oneByOne, append(olds(2, 3), fresh(1, routed(time.Second)), replica("old", 1, oneByOne.scene())), "Create new2, Stop old1", "new1 old2 old3", ""},
		"the last batch frees all old ones":   {oneByOne, append(olds(3), fresh(1, routed(time.Second)), fresh(2, routed(time.Second)), fresh(3)), "", "new1 new2 new3", ""},
		"a delay holds the next batch back":   {delayed, append(olds(2, 3), fresh(1, routed(9*time.Second))), "", "new1 old2 old3", ""},
		"until it is over":                    {delayed, append(olds(2, 3), fresh(1, routed(10*time.Second))), "Create new2", "new1 old2 old3", ""},
		"a watched one takes no connections":  {watched, append(olds(1, 2, 3), fresh(1), fresh(2), fresh(3, ran(19*time.Second))), "", "old1 old2 old3", ""},
		"until it has run well for long":      {watched, append(olds(1, 2, 3), fresh(1), fresh(2), fresh(3, ran(20*time.Second))), "", "new1 new2 new3", ""},
		"and fails at its first exit":         {watched, append(olds(1, 2, 3), fresh(1), fresh(2), fresh(3, crashed)), "Start new3", "old1 old2 old3", "exited with code 1 while it was watched"},
		"one that nobody watches may exit":    {slowless(), append(olds(1, 2, 3), fresh(1), fresh(2), fresh(3, crashed)), "Start new3", "old1 old2 old3", ""},
		"a canary takes its weight":           {canary, append(olds(1, 2, 3), fresh(1, routed(time.Second))), "", "new1*1 old1*3 old2*3 old3*3", ""},
		"and then the rest follow":            {canary, append(olds(1, 2, 3), fresh(1, routed(time.Minute))), "Create new2, Create new3", "new1 old2 old3", ""},
		"one without a time waits":            {byHand, append(olds(1, 2, 3), fresh(1, routed(time.Hour))), "", "new1 old1 old2 old3", ""},
		"for its promotion":                   {promoted, append(olds(1, 2, 3), fresh(1, routed(time.Second))), "Create new2, Create new3", "new1 old2 old3", ""},
		"a canary's first exit does too":      {byHand, append(olds(1, 2, 3), fresh(1, crashed)), "Start new1", "old1 old2 old3", "exited with code 1 while it was watched"},
		"a sick canary fails the release":     {byHand, append(olds(1, 2, 3), fresh(1, unhealthy)), "", "old1 old2 old3", "is unhealthy: no answer"},
		"whatever the others may do":          {all(byHand, 1), append(olds(1, 2, 3), fresh(1, unhealthy)), "", "old1 old2 old3", "is unhealthy: no answer"},
		"a pause begins no batch":             {paused, append(olds(2, 3), fresh(1, routed(time.Second))), "", "new1 old2 old3", ""},
		"nor one of which something is left":  {paused, append(olds(2, 3), fresh(1, routed(time.Second)), fresh(2, left)), "", "new1 old2 old3", ""},
		"nor one that is only made":           {paused, append(olds(2, 3), fresh(1, routed(time.Second)), fresh(2, created)), "", "new1 old2 old3", ""},
		"one under way goes on":               {paused, append(olds(1, 2, 3), fresh(1, crashed)), "Start new1", "old1 old2 old3", ""},
		"and moves no connections":            {paused, append(olds(1, 2, 3), fresh(1)), "", "old1 old2 old3", ""},
		"some failures are tolerated":         {lenient, append(olds(1, 2, 3), fresh(1), fresh(2), fresh(3, unhealthy)), "", "new1 new2", ""},
		"more are not":                        {lenient, append(olds(1, 2, 3), fresh(1), fresh(2, unhealthy), fresh(3, unhealthy)), "", "old1 old2 old3", "is unhealthy"},
		"none to go to is no batch":           {all(lenient, 1), append(olds(1, 2, 3), fresh(1, unhealthy), fresh(2, unhealthy), fresh(3, unhealthy)), "", "old1 old2 old3", ""},
		"stop-first makes room for one":       {stopping, append(olds(1, 2, 3), fresh(1, created)), "", "old2 old3", ""},
		"and starts it when the one is gone":  {stopping, append(olds(2, 3), fresh(1, created)), "Start new1", "old2 old3", ""},
		"a way back has a policy of its own":  {back, olds(1, 2, 3), "Create new1, Create new2", "old1 old2 old3", ""},
		"what carries on the way back stays":  {back, []plan.Replica{fresh(2, routed(time.Hour)), fresh(3, routed(time.Hour)), replica("old", 1, back.scene(), routed(time.Minute))}, "Create new1", "new2 new3 old1", ""},
		"a batch that fails whole is left":    {all(oneByOne, 0.4), append(olds(1, 2, 3), fresh(1, unhealthy)), "Create new2", "old2 old3", ""},
		"no progress in ten minutes fails":    {slow, append(olds(1, 2, 3), fresh(1), fresh(2), fresh(3, starting)), "", "old1 old2 old3", "no progress for 10m0s: 2 of 3 ready"},
		"a new replica's share grows":         {ramped, []plan.Replica{fresh(1, routed(time.Hour)), fresh(2, routed(time.Hour)), fresh(3, routed(time.Second))}, "", "new1*5 new2*5 new3*1", ""},
		"up to that of the others":            {ramped, []plan.Replica{fresh(1, routed(time.Hour)), fresh(2, routed(time.Hour)), fresh(3, routed(9*time.Second))}, "", "new1 new2 new3", ""},
		"an old one's network is mended":      {oneByOne, append(olds(1, 2), fresh(1, starting), replica("old", 3, oneByOne.scene(), routed(time.Hour), func(r *plan.Replica) { r.Attached = false })), "Create old3", "old1 old2 old3", ""},
		"old ones that fail are kept at hand": {oneByOne, append(olds(1, 2), fresh(1, starting), replica("old", 3, oneByOne.scene(), crashed)), "Start old3", "old1 old2", ""},
	} {
		t.Run(name, func(t *testing.T) {
			actions, backends, verdict, _ := tc.rollout.decide(tc.replicas...)
			if actions != tc.actions {
				t.Errorf("actions: %q, want %q", actions, tc.actions)
			}
			if backends != tc.backends {
				t.Errorf("backends: %q, want %q", backends, tc.backends)
			}
			if (tc.failed == "") != (verdict.Failed == "") || !strings.Contains(verdict.Failed, tc.failed) {
				t.Errorf("failed: %q, want %q", verdict.Failed, tc.failed)
			}
		})
	}
}

// What a paused rollout waits for is somebody, not the time between two batches.
func TestPausedBetweenBatches(t *testing.T) {
	r := rollout{paused: "on request", service: spec.Service{Update: spec.UpdatePolicy{Parallelism: 1, Delay: spec.Duration(10 * time.Second)}}}
	_, _, _, p := r.decide(append(olds(2, 3), replica("new", 1, r.scene(), routed(time.Second)))...)
	if got := p.Status[0].Services[0].Waiting; got != "paused: on request" || !p.Wake.IsZero() {
		t.Errorf("waits for %q until %s", got, p.Wake)
	}
}

// slowless is a rollout with the default policy.
func slowless() rollout { return rollout{since: time.Minute} }

func all(r rollout, ratio float64) rollout {
	r.service.Update.MaxFailureRatio = ratio
	return r
}

// A time that a rollout waits for is one at which the loop looks again.
func TestRolloutWakes(t *testing.T) {
	for name, tc := range map[string]struct {
		service spec.Service
		edit    func(*plan.Replica)
		in      time.Duration
	}{
		"monitor": {spec.Service{Update: spec.UpdatePolicy{Monitor: spec.Duration(20 * time.Second)}}, ran(15 * time.Second), 5 * time.Second},
		"canary":  {spec.Service{Canary: &spec.Canary{Replicas: 3, For: spec.Duration(time.Minute)}}, routed(50 * time.Second), 10 * time.Second},
		"ramp":    {spec.Service{Ramp: spec.Duration(100 * time.Second)}, routed(2 * time.Second), 8 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			var rs []plan.Replica
			for n := 1; n <= 3; n++ {
				rs = append(rs, replica("new", n, rollout{}.scene(), tc.edit))
			}
			_, _, _, p := rollout{service: tc.service}.decide(append(olds(1, 2, 3), rs...)...)
			if want := noon.Add(tc.in); !p.Wake.Equal(want) {
				t.Errorf("wakes at %s, want %s", p.Wake, want)
			}
		})
	}
}

// A service that the release leaves as it is neither fails nor delays it.
func TestUntouchedServiceDoesNotFailARelease(t *testing.T) {
	s := rollout{}.scene()
	same := release(2, "old", s)
	good := release(1, "old", s)
	d := plan.Desired{Projects: []plan.Project{{Record: spec.ProjectRecord{Name: "p", Desired: 2, Good: 1}, Release: same, Good: &good}}}
	o := plan.Observed{Now: noon, RulesEqual: true, Replicas: []plan.Replica{replica("old", 1, s, crashed), replica("old", 2, s, unhealthy), replica("old", 3, s)}}
	o.Applied = plan.Routes(d, o)
	if r := plan.Make(d, o).Rollout[0]; !r.Converged || r.Failed != "" {
		t.Errorf("%+v", r)
	}
}

// One that a release in between has begun to replace isn't as it was.
func TestServiceHalfwayDelaysARelease(t *testing.T) {
	s := rollout{}.scene()
	same, good := release(3, "old", s), release(1, "old", s)
	made := func(r *plan.Replica) { r.Record.Release = 3 }
	d := plan.Desired{Projects: []plan.Project{{Record: spec.ProjectRecord{Name: "p", Desired: 3, Good: 1}, Release: same, Good: &good}}}
	for name, rs := range map[string][]plan.Replica{
		"one is gone":              {replica("old", 2, s), replica("old", 3, s)},
		"one is on its way":        {replica("old", 1, s, made, starting), replica("old", 2, s), replica("old", 3, s)},
		"another generation is in": {replica("old", 1, s, crashed), replica("old", 2, s), replica("old", 3, s), replica("new", 1, s, named)},
	} {
		slices.SortFunc(rs, func(a, b plan.Replica) int { return strings.Compare(a.ID, b.ID) })
		o := plan.Observed{Now: noon, RulesEqual: true, Replicas: rs}
		o.Applied = plan.Routes(d, o)
		if r := plan.Make(d, o).Rollout[0]; r.Converged {
			t.Errorf("%s: %+v", name, r)
		}
	}
	rs := []plan.Replica{replica("old", 1, s, made), replica("old", 2, s), replica("old", 3, s)}
	slices.SortFunc(rs, func(a, b plan.Replica) int { return strings.Compare(a.ID, b.ID) })
	o := plan.Observed{Now: noon, RulesEqual: true, Replicas: rs}
	o.Applied = plan.Routes(d, o)
	if r := plan.Make(d, o).Rollout[0]; !r.Converged {
		t.Errorf("all are back: %+v", r)
	}
}

func TestUnhealthyReplica(t *testing.T) {
	for name, tc := range map[string]struct {
		on       spec.OnUnhealthy
		replicas []plan.Replica
		actions  string
	}{
		"gets a spare first":             {spec.UnhealthyReplace, []plan.Replica{well(1), well(2), well(3, unhealthy)}, "Create new4"},
		"that must be ready":             {spec.UnhealthyReplace, []plan.Replica{well(1), well(2), well(3, unhealthy), well(4, starting)}, ""},
		"then it is restarted":           {spec.UnhealthyReplace, []plan.Replica{well(1), well(2), well(3, unhealthy), well(4)}, "Stop new3"},
		"the spare stays until it is up": {spec.UnhealthyReplace, []plan.Replica{well(1), well(2), well(3, starting), well(4)}, ""},
		"and goes":                       {spec.UnhealthyReplace, []plan.Replica{well(1), well(2), well(3), well(4)}, "Stop new4"},
		"a sick spare changes nothing":   {spec.UnhealthyReplace, []plan.Replica{well(1, unhealthy), well(2, unhealthy), well(3, unhealthy), well(4, unhealthy)}, ""},
		"restart is at once":             {spec.UnhealthyRestart, []plan.Replica{well(1), well(2), well(3, unhealthy)}, "Stop new3"},
		"none leaves it":                 {spec.UnhealthyKeep, []plan.Replica{well(1), well(2), well(3, unhealthy)}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := rollout{}.scene()
			r := release(2, "new", s)
			r.Project.Services[0].Unhealthy = tc.on
			r.Project.Services[0].Restart.Mode = spec.RestartAlways
			project := plan.Project{Record: spec.ProjectRecord{Name: "p", Desired: 2, Good: 2}, Release: r, Good: &r}
			d := plan.Desired{Projects: []plan.Project{project}}
			o := plan.Observed{Now: noon, Replicas: tc.replicas, RulesEqual: true}
			for i := range o.Replicas {
				o.Replicas[i].Names = plan.Fingerprint(plan.Endpoint(plan.Desired{}, project, r.Project.Services[0], o.Replicas[i].Record).Names)
			}
			slices.SortFunc(o.Replicas, func(a, b plan.Replica) int { return strings.Compare(a.ID, b.ID) })
			o.Applied = plan.Routes(d, o)
			var did []string
			for _, a := range plan.Make(d, o).Actions {
				did = append(did, strings.TrimPrefix(fmt.Sprintf("%T", a), "plan.")+" "+label(a.Replica(), s))
			}
			if got := strings.Join(did, ", "); got != tc.actions {
				t.Errorf("%q, want %q", got, tc.actions)
			}
		})
	}
}

func well(n int, edits ...func(*plan.Replica)) plan.Replica {
	return replica("new", n, rollout{}.scene(), edits...)
}
