package orchestrator

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// visit tells the visitor where to look, often where an operation is under way.
// What the plan's rules are yet to open stays absent until apply has committed
// them: a visit before would be held, to be answered by its repeat a second
// later, in which nothing else is asked there.
func (l *Loop) visit(p plan.Plan) {
	busy := l.moving()
	for _, s := range p.Status { // the operation may have been another agent's
		busy[s.Name] = busy[s.Name] || s.Rolling && s.Paused == ""
	}
	for i := range p.Visits {
		p.Visits[i].Often = busy[p.Visits[i].Project]
	}
	l.planned.Store(&p.Visits)
	before := l.reachable.Load()
	pending := slices.ContainsFunc(p.Actions, func(a plan.Action) bool { _, rules := a.(plan.Apply); return rules })
	if !pending || before == nil { // at first, the rules may be those of the agent before
		l.opened()
		return
	}
	open := map[string]bool{}
	for _, t := range *before {
		open[t.Key()] = !t.Absent
	}
	now := slices.Clone(p.Visits)
	for i := range now {
		now[i].Absent = now[i].Absent || !open[now[i].Key()]
	}
	l.cfg.Visits.Watch(now)
}

// moving are the projects that an operation is under way for.
func (l *Loop) moving() map[string]bool {
	busy := map[string]bool{}
	for _, op := range l.ops.rolling() {
		busy[op.Project] = true
	}
	return busy
}

// slowLook is how long a look takes that the visitor's targets don't wait for. Most
// take some 10 ms, and visits beside them would delay what a warm rollback waits for.
const slowLook = 100 * time.Millisecond

// quicken has the visitor ask often where an operation has begun since the last
// plan. The look that goes on may take seconds, or not end at all while the
// engine hangs, and what clients notice meanwhile belongs in the receipt too.
func (l *Loop) quicken() {
	told := l.reachable.Load()
	if told == nil {
		return
	}
	busy := l.moving()
	late := func(t spec.VisitTarget) bool { return busy[t.Project] && !t.Often }
	if !slices.ContainsFunc(*told, late) {
		return
	}
	now := slices.Clone(*told)
	for i := range now {
		now[i].Often = now[i].Often || late(now[i])
	}
	if l.reachable.CompareAndSwap(told, &now) { // else a commit has told it of more
		l.cfg.Visits.Watch(now)
	}
}

// opened tells the visitor of all targets as the plan has them.
func (l *Loop) opened() {
	if targets := l.planned.Load(); targets != nil {
		l.reachable.Store(targets)
		l.cfg.Visits.Watch(*targets)
	}
}

// apply commits the rules and has the visitor see at once where connections go
// from then on: the rest of the wave may take longer.
func (l *Loop) apply(ctx context.Context, r spec.Routing) error {
	if err := l.cfg.Network.Apply(ctx, r); err != nil {
		l.unapplied.Store(&err)
		return err
	}
	l.unapplied.Store(nil)
	now := l.cfg.Clock.Now()
	l.committed.Store(&now)
	l.opened()
	l.cfg.Visits.Again()
	return nil
}

// lookOutside adds what the visitor has found. That comes last in a look, so
// that the visits after a commit have their time.
func (l *Loop) lookOutside(ctx context.Context, o *plan.Observed) (err error) {
	if at := l.committed.Load(); at != nil {
		o.Committed = *at
	}
	if o.Fronts, err = l.cfg.Network.Fronts(ctx); err != nil {
		return fmt.Errorf("find the host's addresses: %w", err)
	}
	o.Reach = l.cfg.Visits.Reach()
	return nil
}

// tellReach tells where a service can no longer be reached, and where it can be
// again.
func (l *Loop) tellReach(now []spec.ProjectStatus, reach []spec.Reach) {
	before := l.lost
	l.lost = map[[2]string]string{}
	for _, p := range now {
		for _, s := range p.Services {
			key := [2]string{p.Name, s.Name}
			was := before[key]
			what, _, _ := strings.Cut(s.Unreachable, ":") // which address; why may change
			e := spec.Event{Project: p.Name, Service: s.Name}
			switch {
			case what != "" && what != was:
				e.Kind, e.Message = spec.EventUnreachable, s.Name+": "+s.Unreachable
			case what == "" && was != "" && reached(reach, p.Name, s.Name):
				e.Kind, e.Message = spec.EventReachable, s.Name+": "+was+" is reached again"
			case what == "" && was != "": // no replica is well any more, or the port is no longer published
			}
			if e.Kind != "" {
				l.events.add(e)
			}
			if what != "" {
				l.lost[key] = what
			}
		}
	}
}

// reached reports whether the visitor found nothing wrong with the service.
func reached(all []spec.Reach, project, service string) bool {
	found := false
	for _, r := range all {
		if r.Project != project || r.Service != service {
			continue
		}
		if r.State == spec.ReachUnreachable || r.Absent {
			return false
		}
		found = true
	}
	return found
}
