package orchestrator

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// keptOperations bounds what is remembered of ended operations.
const keptOperations = 256

// operations are the changes that were asked for since the agent started.
type operations struct {
	clock Clock

	mu   sync.Mutex
	next int
	all  []*spec.Operation // oldest first
}

func newOperations(c Clock) *operations { return &operations{clock: c} }

func (o *operations) begin(project, kind string, state spec.OperationState) *spec.Operation {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.next++
	now := o.clock.Now()
	op := &spec.Operation{
		ID: fmt.Sprintf("%s-%s-%d", now.UTC().Format("20060102T150405"), project, o.next), Project: project, Kind: kind, State: state, Started: now,
	}
	if len(o.all) >= keptOperations {
		if i := slices.IndexFunc(o.all, func(x *spec.Operation) bool { return x.State.Ended() }); i >= 0 {
			o.all = slices.Delete(o.all, i, i+1)
		}
	}
	o.all = append(o.all, op)
	return op
}

// change changes an operation under the lock and returns a copy.
func (o *operations) change(op *spec.Operation, f func(*spec.Operation)) spec.Operation {
	o.mu.Lock()
	defer o.mu.Unlock()
	f(op)
	return *op
}

func (o *operations) find(id string) (spec.Operation, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, op := range o.all {
		if op.ID == id {
			return *op, true
		}
	}
	return spec.Operation{}, false
}

// rolling lists the operations that wait for the world to follow.
func (o *operations) rolling() []*spec.Operation {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []*spec.Operation
	for _, op := range o.all {
		if op.State == spec.OperationRolling {
			out = append(out, op)
		}
	}
	return out
}

// Operation returns the operation as it is now.
func (l *Loop) Operation(_ context.Context, id string) (spec.Operation, error) {
	op, ok := l.ops.find(id)
	if !ok {
		return op, fmt.Errorf("operation %s: %w; the agent keeps those since its start", id, spec.ErrNotFound)
	}
	return op, nil
}

// end closes an operation and tells of it.
func (l *Loop) end(op *spec.Operation, state spec.OperationState, cause string, services []spec.ServiceOutcome) {
	ended := l.ops.change(op, func(o *spec.Operation) {
		o.State, o.Cause, o.Services, o.Ended = state, cause, services, l.cfg.Clock.Now()
	})
	kind := spec.EventDone
	if state == spec.OperationFailed || state == spec.OperationRolledBack || state == spec.OperationPaused {
		kind = spec.EventFailed
	}
	message := fmt.Sprintf("%s %s", ended.Kind, state)
	if cause != "" {
		message += ": " + cause
	}
	l.cfg.Log.Info("operation ended", "operation", ended.ID, "kind", ended.Kind, "project", ended.Project, "state", state, "cause", cause)
	l.events.add(spec.Event{Kind: kind, Operation: ended.ID, Project: ended.Project, Message: message})
}

// settle takes the plan's verdicts: it marks releases that converged, goes
// back from those that can't, and ends operations.
func (l *Loop) settle(p plan.Plan, o plan.Observed) {
	for _, r := range p.Rollout {
		l.settleRollout(r)
	}
	for _, op := range l.ops.rolling() {
		l.settleOperation(op, p, o)
	}
}

func (l *Loop) settleRollout(r plan.Rollout) {
	rec, ok := l.state.project(r.Project)
	if !ok || rec.Desired == rec.Good {
		return
	}
	switch {
	case r.Converged:
		rec.Good, rec.Held, rec.Paused = rec.Desired, nil, ""
		rec.Ran = append(without(rec.Ran, rec.Desired), rec.Desired)
		rec.Failed, rec.Left = without(rec.Failed, rec.Desired), without(rec.Left, rec.Desired)
	case r.Failed != "" && r.Action == spec.FailurePause:
		l.cfg.Log.Warn("rollout paused", "project", rec.Name, "release", rec.Desired, "cause", r.Failed)
		rec.Paused = r.Failed
		l.endRollouts(rec.Name, spec.OperationPaused, r.Failed+"; `dunnage rollout resume` tries again, `dunnage rollback` goes back")
	case r.Failed != "" && r.Action == spec.FailureRollback && rec.Good != 0:
		l.cfg.Log.Warn("rolling back", "project", rec.Name, "from", rec.Desired, "to", rec.Good, "cause", r.Failed)
		l.endRollouts(rec.Name, spec.OperationRolledBack, fmt.Sprintf("%s; release %d is back", r.Failed, rec.Good))
		rec.Failed = append(without(rec.Failed, rec.Desired), rec.Desired)
		rec.Desired = rec.Good
		rec.Stopped, rec.Held = rec.Held, nil
		rec.Since, rec.Backward = l.cfg.Clock.Now(), true
	case r.Failed != "":
		why := "there is no earlier release to go back to, so"
		if rec.Good != 0 {
			why = "its failure_action is continue, so"
		}
		l.endRollouts(rec.Name, spec.OperationFailed, fmt.Sprintf("%s; %s the agent keeps trying", r.Failed, why))
		return
	default:
		return
	}
	if err := l.state.save(spec.Commit{Projects: []spec.ProjectRecord{rec}}); err != nil {
		l.trouble(err) // the next look finds the same verdict
		return
	}
	l.Look()
}

// without is a copy of numbers that lacks n.
func without(numbers []int, n int) []int {
	return slices.DeleteFunc(slices.Clone(numbers), func(x int) bool { return x == n })
}

// endRollouts ends the project's operations that brought in a release.
func (l *Loop) endRollouts(project string, state spec.OperationState, cause string) {
	for _, op := range l.ops.rolling() {
		if op.Project == project && op.Release > 0 {
			l.quote(op, cause)
			l.end(op, state, cause, l.outcomes(op))
		}
	}
}

// quotedLines is how much of a failed replica's log an operation keeps.
const quotedLines = 10

// quote keeps with the operation what the replica that its cause names, as its
// first word, wrote last. That is read before the next wave begins to remove it.
func (l *Loop) quote(op *spec.Operation, cause string) {
	culprit, _, _ := strings.Cut(cause, " ")
	culprit = strings.TrimSuffix(culprit, ":")
	for _, p := range l.status.Load().Projects {
		for _, s := range p.Services {
			for _, r := range s.Replicas {
				if r.Replica != culprit {
					continue
				}
				key := spec.ReplicaKey{ID: r.Replica, Project: r.Project, Service: r.Service, Generation: r.Generation, Number: r.Number}
				lines, err := l.cfg.Engine.Tail(l.ctx, key, quotedLines)
				if err != nil {
					l.cfg.Log.Warn("read the log of a failed replica", "replica", culprit, "error", err)
				}
				l.ops.change(op, func(o *spec.Operation) { o.Replica, o.Log = culprit, lines })
			}
		}
	}
}

// settleOperation ends an operation whose aim is reached.
func (l *Loop) settleOperation(op *spec.Operation, p plan.Plan, o plan.Observed) {
	rec, _ := l.state.project(op.Project)
	applied := o.RulesEqual && p.Routing.Equal(o.Applied)
	var reached bool
	switch {
	case op.Kind == "down":
		reached = !slices.ContainsFunc(o.Replicas, func(r plan.Replica) bool { return r.Project == op.Project })
	case op.Release > 0:
		if rec.Desired != op.Release {
			l.end(op, spec.OperationFailed, fmt.Sprintf("replaced by release %d", rec.Desired), nil)
			return
		}
		reached = rec.Good == op.Release && applied
	default:
		reached = applied && settled(p, op.Project)
	}
	if reached && op.Kind == "down" {
		if err := l.purgeVolumes(op.Project); err != nil {
			l.end(op, spec.OperationFailed, "down, but volumes are left: "+plain(err), nil)
			return
		}
	}
	if reached {
		l.end(op, spec.OperationDone, "", l.outcomes(op))
	}
}

// settled reports whether every service of the project is as wanted: stopped
// ones at rest, the others ready.
func settled(p plan.Plan, project string) bool {
	i := slices.IndexFunc(p.Status, func(s spec.ProjectStatus) bool { return s.Name == project })
	if i < 0 {
		return true
	}
	return !slices.ContainsFunc(p.Status[i].Services, func(s spec.ServiceStatus) bool {
		if !s.Stopped {
			return s.Waiting != ""
		}
		return slices.ContainsFunc(s.Replicas, func(r spec.ReplicaStatus) bool { return r.Pid != 0 })
	})
}

// outcomes is one line a service, from the last snapshot.
func (l *Loop) outcomes(op *spec.Operation) []spec.ServiceOutcome {
	status := l.status.Load()
	now := l.cfg.Clock.Now()
	var out []spec.ServiceOutcome
	for _, p := range status.Projects {
		if p.Name != op.Project {
			continue
		}
		for _, s := range p.Services {
			change := spec.ChangeNone
			for _, c := range op.Services {
				if c.Name == s.Name {
					change = c.Change
				}
			}
			o := spec.ServiceOutcome{
				Name: s.Name, Change: change, Ready: s.Ready, Wanted: s.Wanted,
				Duration: spec.Duration(now.Sub(op.Started)), Ports: s.Ports, Detail: s.Waiting,
			}
			if s.Stopped {
				o.Ports = nil
				if change != spec.ChangeStop {
					o.Detail = "is stopped; `dunnage start` starts it"
				}
			}
			out = append(out, o)
		}
	}
	return out
}
