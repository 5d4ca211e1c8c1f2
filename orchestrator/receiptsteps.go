package orchestrator

import (
	"cmp"
	"slices"
	"time"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// span is a time that something took.
type span struct{ from, to time.Time }

// stepKey is a step of a service; of all without one.
type stepKey struct{ name, service string }

// steps is what a receipt is made of while its replicas come and go.
type steps struct {
	spans    map[stepKey][]span
	times    map[stepKey]int
	starting map[string]time.Time // replica -> it was started, and hasn't been ready since
	leaving  map[string]*leaver   // by replica
	carried  int                  // connections that drained when an earlier agent wrote last, and that aren't accounted for yet
}

// leaver is a replica that was replaced and isn't gone.
type leaver struct {
	service  string
	since    time.Time // when no rule was first seen to name it
	most     int       // connections that it had at a look
	now      int       // and has
	stopping time.Time // the stop signal was sent: what it has had then is cut
	seen     bool      // at the present look
}

// stepOrder is that of steps that begin at the same time.
var stepOrder = []string{spec.StepPull, spec.StepCreate, spec.StepStart, spec.StepReady, spec.StepRules, spec.StepDrain, spec.StepStop}

// resumed goes on where a stored receipt ends.
func resumed(r spec.Receipt) steps {
	s := steps{spans: map[stepKey][]span{}, times: map[stepKey]int{}, starting: map[string]time.Time{}, leaving: map[string]*leaver{}, carried: r.Draining}
	for _, x := range r.Steps {
		key := stepKey{x.Name, x.Service}
		s.spans[key], s.times[key] = []span{{x.At, x.At.Add(x.Took.Std())}}, x.Times
	}
	return s
}

func (s *steps) took(name, service string, t span) {
	key := stepKey{name, service}
	s.spans[key] = append(s.spans[key], t)
	s.times[key]++
}

// list is the steps in order of their beginning.
func (s *steps) list() []spec.ReceiptStep {
	var out []spec.ReceiptStep
	for key, spans := range s.spans {
		from, took := union(spans)
		out = append(out, spec.ReceiptStep{Name: key.name, Service: key.service, At: from, Took: spec.Duration(took), Times: s.times[key]})
	}
	slices.SortFunc(out, func(a, b spec.ReceiptStep) int {
		return cmp.Or(a.At.Compare(b.At), cmp.Compare(slices.Index(stepOrder, a.Name), slices.Index(stepOrder, b.Name)), cmp.Compare(a.Service, b.Service))
	})
	return out
}

// union is when the first of some times began, and how long they were together:
// what overlaps counts once.
func union(spans []span) (from time.Time, took time.Duration) {
	spans = slices.SortedFunc(slices.Values(spans), func(a, b span) int { return a.from.Compare(b.from) })
	end := spans[0].from
	for _, x := range spans {
		if x.from.After(end) {
			end = x.from
		}
		if x.to.After(end) {
			took += x.to.Sub(end)
			end = x.to
		}
	}
	return spans[0].from, took
}

// drains counts the connections of replicas that may still end by themselves, and
// those of theirs that have.
func (s *steps) drains() (open, ended int) {
	for _, v := range s.leaving {
		if v.stopping.IsZero() {
			open += v.now
			ended += v.most - v.now
		}
	}
	return open + s.carried, ended
}

// observe takes a look into the receipt of the rollout under way: who got ready,
// who leaves, and what became of the connections of those.
// Those that leave for an earlier one are that one's.
func (a *account) observe(o plan.Observed, wanted func(*plan.Replica) bool, earlier func(id string) bool) {
	for i := range o.Replicas {
		r := &o.Replicas[i]
		if r.Project != a.Project {
			continue
		}
		if at, ok := a.starting[r.ID]; ok && (r.Usable() || r.Done()) {
			a.took(spec.StepReady, r.Service, span{at, o.Now})
			delete(a.starting, r.ID)
		}
		if a.leaving[r.ID] == nil && r.Alive() && !r.Named && r.Recorded && !wanted(r) && !earlier(r.ID) {
			a.leaving[r.ID] = &leaver{service: r.Service, since: o.Now, stopping: r.StoppingSince}
		}
	}
	a.watch(o, wanted)
	if a.carried > 0 { // the agent was away meanwhile: nothing was stopped, so what is gone ended by itself
		was := a.carried
		a.carried = 0
		open, _ := a.drains()
		a.Drained += max(0, was-open)
		a.stale = true
	}
}

// watch brings the replicas that leave up to date.
func (a *account) watch(o plan.Observed, wanted func(*plan.Replica) bool) {
	for i := range o.Replicas {
		r := &o.Replicas[i]
		v := a.leaving[r.ID]
		switch {
		case v == nil:
		case r.Alive() && (r.Named || wanted(r) && v.stopping.IsZero()): // it is wanted again, and its connections go on
			a.Drained += v.most - v.now
			delete(a.leaving, r.ID)
		case r.Alive():
			v.seen = true
			if v.stopping.IsZero() {
				v.most, v.now = max(v.most, r.Conns), r.Conns
			}
		}
	}
	for id, v := range a.leaving {
		if !v.seen {
			a.gone(v, o.Now)
			delete(a.leaving, id)
		}
		v.seen = false
	}
}

// stopped takes note that the replica got its stop signal: what it has of
// connections is cut. One that had been let go of by all has drained.
func (a *account) stopped(id string, at time.Time) {
	v := a.leaving[id]
	if v == nil || !v.stopping.IsZero() {
		return
	}
	a.closes(v, at)
	v.stopping = at
}

// closes ends the drain of a replica.
func (a *account) closes(v *leaver, at time.Time) {
	a.Drained += v.most - v.now
	a.Cut += v.now
	if v.most > 0 && at.After(v.since) {
		a.took(spec.StepDrain, v.service, span{v.since, at})
	}
	a.stale = true
}

// gone takes note that the process has ended.
func (a *account) gone(v *leaver, at time.Time) {
	if v.stopping.IsZero() { // by itself, and its connections with it
		a.closes(v, at)
		return
	}
	a.took(spec.StepStop, v.service, span{v.stopping, at})
	a.stale = true
}

// enter takes an action that succeeded into the receipts.
func (l *Loop) enter(r outcome) {
	if _, rules := r.action.(plan.Apply); rules {
		all := l.cfg.Network.Written()
		r.written = spec.Written{Commits: all.Commits - l.written.Commits, Rules: spec.RuleChange{
			Added: all.Rules.Added - l.written.Rules.Added, Removed: all.Rules.Removed - l.written.Rules.Removed,
		}}
		l.written = all
	}
	rs := l.receipts
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for _, a := range rs.all {
		if stop, ok := r.action.(plan.Stop); ok {
			a.stopped(stop.Key.ID, r.took.to)
		}
		if a.Ended.IsZero() {
			a.did(r, l.applied)
		}
	}
}

// did takes an action of the rollout; before is the routing until then.
func (a *account) did(r outcome, before spec.Routing) {
	key, took := r.action.Replica(), r.took
	switch x := r.action.(type) {
	case plan.Create:
		if key.Project == a.Project {
			a.took(spec.StepCreate, key.Service, took)
		}
	case plan.Start:
		if key.Project == a.Project {
			a.took(spec.StepStart, key.Service, took)
			a.starting[key.ID] = took.to
		}
	case plan.Apply:
		if routesOf(a.Project, before).Equal(routesOf(a.Project, x.Routing)) {
			return // it was for others
		}
		a.took(spec.StepRules, "", took)
		a.Commits += r.written.Commits
		a.Rules.Added += r.written.Rules.Added
		a.Rules.Removed += r.written.Rules.Removed
	}
}

// routesOf is the part of the routing that is the project's.
func routesOf(project string, r spec.Routing) (own spec.Routing) {
	for _, s := range r.Services {
		if s.Project == project {
			own.Services = append(own.Services, s)
		}
	}
	for _, p := range r.Published {
		if p.Project == project {
			own.Published = append(own.Published, p)
		}
	}
	return own
}
