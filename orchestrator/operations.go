package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"dunnage/spec"
)

// keptOperations bounds what is remembered of ended operations.
const keptOperations = 256

// operation is a change at work.
type operation struct {
	spec.Operation // changed through operations.change only

	number   int                // of its beginning
	cancel   context.CancelFunc // of its work before the release is installed
	patience time.Time          // when to stop waiting for what was there before it; zero = never
	arrived  time.Time          // when its release was first seen to have converged
	pull     span               // the time in which it looked for its images
	alone    []string           // replicas that it restarts, and nothing else
	failing  []string           // services that failed already when it was to bring in its release
	ailing   []string           // those of them, and of who waits for them, that the release neither fails by nor waits for
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
	op := &operation{number: o.next, cancel: func() {}, Operation: spec.Operation{
		// The number begins anew with each agent, and a restart takes less than a second.
		ID:      fmt.Sprintf("%s-%s-%d", now.UTC().Format("20060102T150405.000"), project, o.next),
		Project: project, Kind: kind, Owner: owner, State: state, Started: now, Since: now,
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
		return nil, &busyError{Operation: *h, now: o.clock.Now()}
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

// turns lists the waiting operations of a kind whose turn it is.
func (o *operations) turns(kind string) []*operation {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []*operation
	for _, op := range o.all {
		if op.Kind == kind && op.State == spec.OperationWaiting && o.holder(op.Project, op) == nil {
			out = append(out, op)
		}
	}
	return out
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
	now    time.Time
	paused string // why the rollout that it follows stands still; empty = it doesn't
}

func (e *busyError) Error() string {
	if e.paused != "" {
		return fmt.Sprintf("project %s is busy: its rollout is paused (%s): %s", e.Project, e.paused, atWork(e.Operation, e.now))
	}
	return fmt.Sprintf("project %s is busy: %s", e.Project, atWork(e.Operation, e.now))
}

// atWork says in a line who does what, and how far it is for how long: "deploy of
// release 12 by alice, rolling for 40s".
func atWork(op spec.Operation, now time.Time) string {
	text := op.Kind
	if op.Release > 0 {
		text += fmt.Sprintf(" of release %d", op.Release)
	}
	if op.Owner != "" {
		text += " by " + op.Owner
	}
	return fmt.Sprintf("%s, %s for %s", text, op.State, now.Sub(op.Since).Round(time.Second))
}

// Hint names the ways on.
func (e *busyError) Hint() string {
	if e.paused != "" {
		return fmt.Sprintf("`dunnage rollout resume -p %s` lets it go on, `dunnage rollback -p %s` goes back, --take-over ends the pause", e.Project, e.Project)
	}
	return fmt.Sprintf("--wait waits for its end, --take-over ends it, `dunnage rollback -p %s` goes back", e.Project)
}

func (e *busyError) Unwrap() error { return spec.ErrRefused }

// standsStill is why the rollout that an operation follows does; empty = it doesn't,
// or the operation does something else.
func (l *Loop) standsStill(op spec.Operation) string {
	rec, _ := l.state.project(op.Project)
	if rec.Down || op.State != spec.OperationRolling || op.Kind != "pause" && op.Release != rec.Desired {
		return ""
	}
	return rec.Paused
}

// onlyPaused reports whether nothing is at work on the project but who follows a
// rollout that stands still. A deploy doesn't wait for that.
func (l *Loop) onlyPaused(project string) bool {
	all := l.ops.others(&operation{Operation: spec.Operation{Project: project}})
	return len(all) > 0 && !slices.ContainsFunc(all, func(op *operation) bool { return l.standsStill(l.ops.copyOf(op)) == "" })
}

// take is operations.take, with an error that says whether a pause is waited for.
func (l *Loop) take(project, kind string, turn spec.Turn, state spec.OperationState) (*operation, error) {
	op, err := l.ops.take(project, kind, turn, state)
	var busy *busyError
	if errors.As(err, &busy) {
		busy.paused = l.standsStill(busy.Operation)
	}
	return op, err
}

// change changes an operation under the lock and returns a copy.
func (o *operations) change(op *operation, f func(*operation)) spec.Operation {
	o.mu.Lock()
	defer o.mu.Unlock()
	was := op.State
	f(op)
	if op.State != was {
		op.Since = o.clock.Now()
	}
	if op.State.Ended() && !was.Ended() {
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

// last is the number of the operation that began last.
func (o *operations) last() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.next
}

// since lists the operations of a kind that began after the one of that number.
func (o *operations) since(number int, kind string) []spec.Operation {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []spec.Operation
	for _, op := range o.all {
		if op.number > number && op.Kind == kind {
			out = append(out, op.Operation)
		}
	}
	return out
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

// atWork lists the IDs of all that haven't ended.
func (o *operations) atWork() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []string
	for _, op := range o.all {
		if !op.State.Ended() {
			out = append(out, op.ID)
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
	cause = l.staysCurrent(op, state, cause)
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
	l.receipts.ended(ended)
	l.Look() // which saves the receipt
	l.tellEnd(ended)
}

// tellEnd counts an operation that has ended and tells of it.
func (l *Loop) tellEnd(op spec.Operation) {
	l.measures.ended(op, func(project string) bool { _, known := l.state.project(project); return known })
	kind := spec.EventDone
	if op.State == spec.OperationFailed || op.State == spec.OperationRolledBack || op.State == spec.OperationPaused {
		kind = spec.EventFailed
	}
	message := fmt.Sprintf("%s %s", op.Kind, op.State)
	if op.Cause != "" {
		message += ": " + op.Cause
	}
	l.cfg.Log.Info("operation ended", "operation", op.ID, "kind", op.Kind, "project", op.Project, "state", op.State, "cause", op.Cause)
	l.events.add(spec.Event{Kind: kind, Operation: op.ID, Project: op.Project, Message: message})
}

// makeRoom ends the other operations at work on the project.
func (l *Loop) makeRoom(op *operation) {
	by := ""
	if op.Owner != "" {
		by = " of " + op.Owner
	}
	for _, x := range l.ops.others(op) {
		l.receipts.leave(x.ID) // its rollout may go on
		if err := l.unask(x); err != nil {
			l.cfg.Log.Warn("call off the restart of replicas", "operation", x.ID, "error", err) // they are restarted nevertheless
		}
		l.end(x, spec.OperationFailed, fmt.Sprintf("the %s%s took over", op.Kind, by), nil)
	}
}
