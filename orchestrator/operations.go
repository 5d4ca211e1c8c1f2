package orchestrator

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// keptOperations bounds what is remembered of ended operations.
const keptOperations = 256

// operation is a change at work.
type operation struct {
	spec.Operation // changed through operations.change only

	cancel   context.CancelFunc // of its work before the release is installed
	patience time.Time          // when to stop waiting for what was there before it; zero = never
	arrived  time.Time          // when its release was first seen to have converged
}

// operations are the changes that were asked for since the agent started.
type operations struct {
	clock Clock

	mu    sync.Mutex
	next  int
	all   []*operation  // oldest first
	ended chan struct{} // closed and replaced when one ends
}

func newOperations(c Clock) *operations {
	return &operations{clock: c, ended: make(chan struct{})}
}

// begin adds an operation. The project's turn is its only after take.
func (o *operations) begin(project, kind, owner string, state spec.OperationState) *operation {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.add(project, kind, owner, state)
}

func (o *operations) add(project, kind, owner string, state spec.OperationState) *operation {
	o.next++
	now := o.clock.Now()
	op := &operation{cancel: func() {}, Operation: spec.Operation{
		ID:      fmt.Sprintf("%s-%s-%d", now.UTC().Format("20060102T150405"), project, o.next),
		Project: project, Kind: kind, Owner: owner, State: state, Started: now,
	}}
	if len(o.all) >= keptOperations {
		if i := slices.IndexFunc(o.all, func(x *operation) bool { return x.State.Ended() }); i >= 0 {
			o.all = slices.Delete(o.all, i, i+1)
		}
	}
	o.all = append(o.all, op)
	return op
}

// take begins an operation if no other is at work on the project, or if this
// one may wait for it; one that takes over is for the caller to make room for.
// The error wraps spec.ErrRefused and says who is at work.
func (o *operations) take(project, kind string, turn spec.Turn, state spec.OperationState) (*operation, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	h := o.holder(project, nil)
	switch {
	case h == nil || turn.TakeOver:
	case turn.Wait:
		state = spec.OperationWaiting
	default:
		return nil, &busyError{*h, o.clock.Now()}
	}
	return o.add(project, kind, turn.Owner, state), nil
}

// holder is the oldest operation at work on the project that began before
// except, nil if there is none. Called with mu held.
func (o *operations) holder(project string, before *operation) *spec.Operation {
	for _, op := range o.all {
		if op == before {
			break
		}
		if op.Project == project && !op.State.Ended() {
			return &op.Operation
		}
	}
	return nil
}

// await returns when it is the operation's turn.
func (o *operations) await(ctx context.Context, op *operation) error {
	for {
		o.mu.Lock()
		h, ended := o.holder(op.Project, op), o.ended
		o.mu.Unlock()
		if h == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ended:
		}
	}
}

// busy reports whether an operation is at work on the project.
func (o *operations) busy(project string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.holder(project, nil) != nil
}

// others lists the project's operations at work but op.
func (o *operations) others(op *operation) []*operation {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []*operation
	for _, x := range o.all {
		if x != op && x.Project == op.Project && !x.State.Ended() {
			out = append(out, x)
		}
	}
	return out
}

// busyError says which operation is at work on a project.
type busyError struct {
	spec.Operation
	now time.Time
}

func (e *busyError) Error() string {
	return fmt.Sprintf("project %s is busy: %s", e.Project, atWork(e.Operation, e.now))
}

// atWork says in a line who does what for how long: "deploy of release 12 by
// alice, rolling for 40s".
func atWork(op spec.Operation, now time.Time) string {
	text := op.Kind
	if op.Release > 0 {
		text += fmt.Sprintf(" of release %d", op.Release)
	}
	if op.Owner != "" {
		text += " by " + op.Owner
	}
	return fmt.Sprintf("%s, %s for %s", text, op.State, now.Sub(op.Started).Round(time.Second))
}

// Hint names the ways on.
func (e *busyError) Hint() string {
	return fmt.Sprintf("--wait waits for its end, --take-over ends it, `dunnage rollback -p %s` goes back", e.Project)
}

func (e *busyError) Unwrap() error { return spec.ErrRefused }

// change changes an operation under the lock and returns a copy.
func (o *operations) change(op *operation, f func(*operation)) spec.Operation {
	o.mu.Lock()
	defer o.mu.Unlock()
	was := op.State.Ended()
	f(op)
	if op.State.Ended() && !was {
		close(o.ended)
		o.ended = make(chan struct{})
	}
	return op.Operation
}

// copyOf is the operation as it is now.
func (o *operations) copyOf(op *operation) spec.Operation {
	return o.change(op, func(*operation) {})
}

func (o *operations) find(id string) (spec.Operation, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, op := range o.all {
		if op.ID == id {
			return op.Operation, true
		}
	}
	return spec.Operation{}, false
}

// running lists the operations at work, by project.
func (o *operations) running() map[string]spec.Operation {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := map[string]spec.Operation{}
	for _, op := range o.all {
		if _, seen := out[op.Project]; !seen && !op.State.Ended() {
			out[op.Project] = op.Operation
		}
	}
	return out
}

// rolling lists the operations that wait for the world to follow.
func (o *operations) rolling() []*operation {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []*operation
	for _, op := range o.all {
		if op.State == spec.OperationRolling || op.State == spec.OperationReturning {
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

// end closes an operation and tells of it. One that has ended stays as it is.
func (l *Loop) end(op *operation, state spec.OperationState, cause string, services []spec.ServiceOutcome) {
	over := false
	ended := l.ops.change(op, func(o *operation) {
		if over = o.State.Ended(); over {
			return
		}
		o.State, o.Cause, o.Services, o.Ended = state, cause, services, l.cfg.Clock.Now()
		o.cancel()
	})
	if over {
		return
	}
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

// makeRoom ends the other operations at work on the project.
func (l *Loop) makeRoom(op *operation) {
	by := ""
	if op.Owner != "" {
		by = " of " + op.Owner
	}
	for _, x := range l.ops.others(op) {
		l.end(x, spec.OperationFailed, fmt.Sprintf("the %s%s took over", op.Kind, by), nil)
	}
}

// settle takes the plan's verdicts: it marks releases that converged, goes
// back from those that can't, and ends operations. It reports whether something
// else is desired now.
func (l *Loop) settle(p plan.Plan, o plan.Observed) (changed bool) {
	for _, r := range p.Rollout {
		changed = l.settleRollout(r) || changed
	}
	for _, op := range l.ops.rolling() {
		l.settleOperation(op, p, o)
	}
	return changed
}

func (l *Loop) settleRollout(r plan.Rollout) (changed bool) {
	rec, ok := l.state.project(r.Project)
	if !ok || rec.Desired == rec.Good {
		return false
	}
	desired := rec.Desired
	switch {
	case r.Converged:
		rec.Good, rec.Held, rec.Paused = rec.Desired, nil, ""
		rec.Ran = append(without(rec.Ran, rec.Desired), rec.Desired)
		rec.Failed, rec.Left = without(rec.Failed, rec.Desired), without(rec.Left, rec.Desired)
		rec.Causes = explained(rec.Causes, rec.Desired, "")
	case r.Failed == "":
		return false
	case r.Action == spec.FailurePause:
		l.cfg.Log.Warn("rollout paused", "project", rec.Name, "release", rec.Desired, "cause", r.Failed)
		rec.Paused = r.Failed
		l.endRollouts(r, spec.OperationPaused, r.Failed+"; `dunnage rollout resume` tries again, `dunnage rollback` goes back")
	case r.Action == spec.FailureRollback && rec.Good != 0:
		l.cfg.Log.Warn("rolling back", "project", rec.Name, "from", rec.Desired, "to", rec.Good, "cause", r.Failed)
		l.goBack(r, rec.Good)
		rec.Failed = append(without(rec.Failed, rec.Desired), rec.Desired)
		rec.Causes = explained(rec.Causes, rec.Desired, r.Failed)
		rec.Desired = rec.Good
		rec.Stopped, rec.Held = rec.Held, nil
		rec.Since, rec.Backward = l.cfg.Clock.Now(), true
	default:
		why := "there is no earlier release to go back to, so"
		if rec.Good != 0 {
			why = "its failure_action is continue, so"
		}
		l.endRollouts(r, spec.OperationFailed, fmt.Sprintf("%s; %s the agent keeps trying", r.Failed, why))
		if slices.Contains(rec.Failed, rec.Desired) {
			return false
		}
		rec.Failed = append(rec.Failed, rec.Desired)
		rec.Causes = explained(rec.Causes, rec.Desired, r.Failed)
	}
	if err := l.state.save(spec.Commit{Projects: []spec.ProjectRecord{rec}}); err != nil {
		l.trouble(err) // the next look finds the same verdict
		return false
	}
	l.Look()
	return rec.Desired != desired
}

// without is a copy of numbers that lacks n.
func without(numbers []int, n int) []int {
	return slices.DeleteFunc(slices.Clone(numbers), func(x int) bool { return x == n })
}

// rollouts lists the project's operations that brought in a release and wait
// for it.
func (l *Loop) rollouts(project string) []*operation {
	return slices.DeleteFunc(l.ops.rolling(), func(op *operation) bool {
		return op.Project != project || op.Release == 0 || op.State != spec.OperationRolling
	})
}

// endRollouts ends the operations that wait for a failed release.
func (l *Loop) endRollouts(r plan.Rollout, state spec.OperationState, cause string) {
	for _, op := range l.rollouts(r.Project) {
		l.quote(op, r.Culprit)
		l.end(op, state, cause, l.outcomes(op))
	}
}

// returnPatience bounds how long an operation that has failed waits for the
// earlier release, before it ends and says that it isn't back.
const returnPatience = time.Minute

// goBack lets the operations that wait for a failed release wait for the
// earlier one.
func (l *Loop) goBack(r plan.Rollout, good int) {
	until := l.cfg.Clock.Now().Add(returnPatience)
	for _, op := range l.rollouts(r.Project) {
		l.quote(op, r.Culprit)
		l.ops.change(op, func(o *operation) {
			o.State, o.Cause, o.Release, o.patience = spec.OperationReturning, r.Failed, good, until
		})
	}
	l.events.add(spec.Event{Kind: spec.EventRelease, Project: r.Project, Message: fmt.Sprintf("back to release %d: %s", good, r.Failed)})
}

// quotedLines is how much of a failed replica's log an operation keeps.
const quotedLines = 10

// quote keeps with the operation what the failed replica wrote last of this
// release: an earlier one with the same content wrote to the same log. That is
// read before the next wave begins to remove it.
func (l *Loop) quote(op *operation, culprit spec.ReplicaKey) {
	if culprit.ID == "" {
		return
	}
	rec, _ := l.state.project(op.Project)
	lines, err := l.cfg.Engine.Tail(l.ctx, culprit, rec.Since, quotedLines)
	if err != nil {
		l.cfg.Log.Warn("read the log of a failed replica", "replica", culprit.ID, "error", err)
	}
	l.ops.change(op, func(o *operation) { o.Replica, o.Log = culprit.ID, lines })
}

// settleOperation ends an operation whose aim is reached.
func (l *Loop) settleOperation(op *operation, p plan.Plan, o plan.Observed) {
	rec, _ := l.state.project(op.Project)
	applied := o.RulesEqual && p.Routing.Equal(o.Applied)
	l.clock(op, p)
	if op.arrived.IsZero() && op.Release > 0 && rec.Good == op.Release {
		op.arrived = o.Now
	}
	if op.Release > 0 && rec.Desired != op.Release {
		l.end(op, spec.OperationFailed, fmt.Sprintf("replaced by release %d", rec.Desired), nil)
		return
	}
	late := !op.patience.IsZero() && !o.Now.Before(op.patience)
	if op.patience.IsZero() && !op.arrived.IsZero() {
		late = !o.Now.Before(op.arrived.Add(restPatience))
	}
	switch {
	case op.Kind == "down":
		if !slices.ContainsFunc(o.Replicas, func(r plan.Replica) bool { return r.Project == op.Project }) {
			l.endDown(op)
		}
	case op.State == spec.OperationReturning && applied && settled(p, op.Project, nil):
		l.end(op, spec.OperationRolledBack, fmt.Sprintf("%s; release %d is back", op.Cause, op.Release), l.outcomes(op))
	case op.State == spec.OperationReturning && late:
		l.end(op, spec.OperationRolledBack, fmt.Sprintf("%s; release %d is desired again, but it isn't back yet", op.Cause, op.Release), l.outcomes(op))
	case op.State == spec.OperationReturning:
	case late:
		l.end(op, spec.OperationFailed, "not all is as asked for; the agent keeps trying", l.outcomes(op))
	case l.reached(op, rec, p) && applied:
		l.end(op, spec.OperationDone, "", l.outcomes(op))
	}
}

// reached reports whether what the operation asked for is true: its release
// has converged and what that changes is ready or, where there is no new one,
// all is as it should be. A release converges for all that ails what serves
// already, such as replicas that crash while others are taken away.
func (l *Loop) reached(op *operation, rec spec.ProjectRecord, p plan.Plan) bool {
	if op.Release > 0 && op.patience.IsZero() {
		return rec.Good == op.Release && settled(p, op.Project, op.changed())
	}
	if op.Kind == "stop" || op.Kind == "start" {
		return settled(p, op.Project, op.names())
	}
	return settled(p, op.Project, nil)
}

// names lists the services that the operation changes.
func (o *operation) names() []string {
	var out []string
	for _, s := range o.Services {
		out = append(out, s.Name)
	}
	return out
}

// changed lists those that it gives something new, never nil.
func (o *operation) changed() []string {
	out := []string{}
	for _, s := range o.Services {
		if !slices.Contains([]spec.Change{spec.ChangeNone, spec.ChangeOrphan, spec.ChangeRemove}, s.Change) {
			out = append(out, s.Name)
		}
	}
	return out
}

func (l *Loop) endDown(op *operation) {
	if err := l.purgeVolumes(op.Project); err != nil {
		l.end(op, spec.OperationFailed, "down, but volumes are left: "+plain(err), nil)
		return
	}
	l.end(op, spec.OperationDone, "", l.outcomes(op))
}

// clock notes for each service how long the operation took to make it ready.
func (l *Loop) clock(op *operation, p plan.Plan) {
	spent := spec.Duration(l.cfg.Clock.Now().Sub(op.Started))
	for _, ps := range p.Status {
		if ps.Name != op.Project {
			continue
		}
		for _, s := range ps.Services {
			l.ops.change(op, func(o *operation) {
				for i := range o.Services {
					if c := &o.Services[i]; c.Name == s.Name && c.Change != spec.ChangeNone && c.Duration == 0 && s.Waiting == "" {
						c.Duration = spent
					}
				}
			})
		}
	}
}

// settled reports whether the services of the project, nil = all, are as
// wanted: stopped ones at rest, the others ready.
func settled(p plan.Plan, project string, services []string) bool {
	i := slices.IndexFunc(p.Status, func(s spec.ProjectStatus) bool { return s.Name == project })
	if i < 0 {
		return true
	}
	return !slices.ContainsFunc(p.Status[i].Services, func(s spec.ServiceStatus) bool {
		if services != nil && !slices.Contains(services, s.Name) {
			return false
		}
		if !s.Stopped {
			return s.Waiting != ""
		}
		return slices.ContainsFunc(s.Replicas, func(r spec.ReplicaStatus) bool { return r.Pid != 0 })
	})
}

// outcomes is one line a service, from the last snapshot.
func (l *Loop) outcomes(op *operation) []spec.ServiceOutcome {
	status := l.status.Load()
	var out []spec.ServiceOutcome
	for _, p := range status.Projects {
		if p.Name != op.Project {
			continue
		}
		for _, s := range p.Services {
			o := spec.ServiceOutcome{Name: s.Name, Change: spec.ChangeNone, Ready: s.Ready, Wanted: s.Wanted, Ports: s.Ports, Detail: s.Waiting}
			for _, c := range op.Services {
				if c.Name == s.Name {
					o.Change, o.Duration = c.Change, c.Duration
				}
			}
			if o.Change == spec.ChangeRemove && s.Orphan {
				o.Ready, o.Wanted, o.Ports, o.Detail = 0, 0, nil, "goes when the release has converged"
			}
			if s.Stopped {
				o.Ports = nil
				if o.Change != spec.ChangeStop {
					o.Detail = "is stopped; `dunnage start` starts it"
				}
			}
			out = append(out, o)
		}
	}
	return out
}
