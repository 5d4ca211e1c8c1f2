package orchestrator

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// receipts are those that have yet to settle: of rollouts that go on, or whose
// replaced replicas aren't all gone. A receipt is saved with the commit that
// begins its rollout; the end and the rest come after, with the next look, so
// that no deploy waits for another write to the disk. What ends in between is
// told by the next agent, as interrupted.
type receipts struct {
	clock Clock
	tally func(project string, since time.Time) []spec.VisitTally
	tell  func(spec.Operation) // of the end of one that an earlier agent began

	mu  sync.Mutex
	all []*account // in the order of their beginning
}

// account is a receipt that is being written.
type account struct {
	spec.Receipt
	follows string            // ID of the operation whose end is that of the rollout; empty = the looks decide
	orphan  bool              // its operation was an earlier agent's, and no other has followed it
	stale   bool              // the store has an older one
	resumed time.Time         // zero = it was never paused
	before  []spec.VisitTally // the pause
	near    time.Time         // when the looks first found the release, or the one before, desired for good, but not all of it ready
	steps
}

func newReceipts(c Clock, tally func(project string, since time.Time) []spec.VisitTally, tell func(spec.Operation), unsettled []spec.Receipt) *receipts {
	rs := &receipts{clock: c, tally: tally, tell: tell}
	for _, r := range unsettled {
		a := &account{Receipt: r, orphan: r.Ended.IsZero(), stale: r.Ended.IsZero(), steps: resumed(r)}
		if r.Ended.IsZero() {
			a.Interrupted = c.Now()
		}
		rs.all = append(rs.all, a)
	}
	return rs
}

// draft is the receipt of the rollout that op is to begin: of the release
// instead of the one that rec has. It is to be saved with the record, which gets
// its number.
func (l *Loop) draft(op *operation, rec *spec.ProjectRecord, to spec.Release) spec.Receipt {
	rec.Receipts++
	now := l.cfg.Clock.Now()
	o := l.ops.copyOf(op)
	r := spec.Receipt{
		Project: rec.Name, Number: rec.Receipts, Release: to.Number, Operation: o.ID, Kind: o.Kind, Owner: o.Owner,
		Outcome: spec.OperationRolling, Started: now, Images: map[string]string{}, Secrets: map[string]int{},
	}
	if from := l.present(rec.Name); from != nil {
		r.From = from.Number
	}
	if to.Reason != o.Kind && o.Kind != "rollback" { // the reason of the release that it goes back to isn't why it does
		r.Reason = to.Reason
	}
	if !op.pull.from.IsZero() {
		r.Started = op.pull.from
		r.Steps = []spec.ReceiptStep{{Name: spec.StepPull, At: r.Started, Took: spec.Duration(op.pull.to.Sub(r.Started)), Times: 1}}
	}
	for name, image := range to.Images {
		r.Images[name] = image.Digest
	}
	for _, pins := range to.Secrets {
		for _, p := range pins {
			if p.Version > 0 {
				r.Secrets[p.String()] = p.Version
			}
		}
	}
	return r
}

// begin takes a receipt that was saved. The rollout before it, if that goes on,
// ends by it.
func (rs *receipts) begin(r spec.Receipt) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if a := rs.latest(r.Project); a != nil && a.Ended.IsZero() {
		cause := fmt.Sprintf("replaced by release %d", r.Release)
		if r.Kind == "rollback" {
			cause = fmt.Sprintf("a rollback to release %d took over", r.Release)
		}
		rs.finish(a, spec.OperationFailed, cause)
	}
	rs.all = append(rs.all, &account{Receipt: r, follows: r.Operation, steps: resumed(r)})
}

// latest is the project's newest one, nil if that has settled. Called with mu
// held.
func (rs *receipts) latest(project string) *account {
	for _, a := range slices.Backward(rs.all) {
		if a.Project == project {
			return a
		}
	}
	return nil
}

// finish ends a receipt, and tells of that in the place of an operation that
// ended with an earlier agent. Called with mu held.
func (rs *receipts) finish(a *account, outcome spec.OperationState, cause string) {
	a.Outcome, a.Cause, a.follows, a.stale = outcome, cause, "", true
	a.Ended = rs.clock.Now()
	a.Visits = rs.visits(a)
	if a.orphan {
		a.orphan = false
		rs.tell(spec.Operation{
			ID: a.Operation, Project: a.Project, Kind: a.Kind, Owner: a.Owner, Release: a.Release,
			State: outcome, Cause: cause, Started: a.Started, Ended: a.Ended,
		})
	}
}

// visits are those that the receipt counts: since the agent began, and without
// those of a pause, which may last for longer than visits are kept.
func (rs *receipts) visits(a *account) []spec.VisitTally {
	since := a.Started
	for _, t := range []time.Time{a.Interrupted, a.resumed} {
		if t.After(since) {
			since = t
		}
	}
	all := rs.tally(a.Project, since)
	for _, b := range a.before {
		if i := slices.IndexFunc(all, func(t spec.VisitTally) bool { return t.Key() == b.Key() }); i >= 0 {
			all[i] = b.Plus(all[i])
		} else {
			all = append(all, b)
		}
	}
	return all
}

// ended closes the receipt of the rollout that the operation followed to its end.
func (rs *receipts) ended(op spec.Operation) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for _, a := range rs.all {
		if a.follows == op.ID {
			rs.finish(a, op.State, op.Cause)
		}
	}
}

// forget drops those of a project.
func (rs *receipts) forget(project string) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.all = slices.DeleteFunc(rs.all, func(a *account) bool { return a.Project == project })
}

// leave takes note that the operation ends and the rollout doesn't.
func (rs *receipts) leave(op string) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for _, a := range rs.all {
		if a.follows == op {
			a.follows = ""
		}
	}
}

// follow lets the end of another operation be that of the release's rollout,
// which goes on if it was paused.
func (rs *receipts) follow(project string, release int, op string) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	a := rs.latest(project)
	if a == nil || a.Release != release || !a.Ended.IsZero() && a.Outcome != spec.OperationPaused {
		return
	}
	if !a.Ended.IsZero() {
		a.resumed, a.before = rs.clock.Now(), a.Visits
	}
	a.follows, a.orphan, a.Outcome, a.Cause, a.Ended, a.stale = op, false, spec.OperationRolling, "", time.Time{}, true
}

// reckon takes what a look has found into the receipts, and saves those that
// have changed.
func (l *Loop) reckon(p plan.Plan, o plan.Observed) {
	rs := l.receipts
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if len(rs.all) == 0 {
		return
	}
	applied := o.RulesEqual && p.Routing.Equal(o.Applied)
	for _, a := range rs.all {
		rec, _ := l.state.project(a.Project)
		wanted := l.wanted(rec, p)
		last := a == rs.latest(a.Project)
		if last {
			a.observe(o, wanted, rs.leavesEarlier)
		} else {
			a.watch(o, wanted)
		}
		if a.Ended.IsZero() && a.follows == "" {
			rs.judge(a, rec, applied, unsettled(p, a.Project, nil), o.Now)
		}
		if !a.Ended.IsZero() && len(a.leaving) == 0 && (!last || !unwanted(o, a.Project, wanted)) {
			a.Settled, a.stale = o.Now, true
		}
	}
	l.keepReceipts()
}

// leavesEarlier reports whether some receipt counts the replica's connections.
// Called with mu held.
func (rs *receipts) leavesEarlier(id string) bool {
	return slices.ContainsFunc(rs.all, func(a *account) bool { return a.leaving[id] != nil })
}

// judge ends a receipt whose rollout no operation follows: the agent was
// restarted, or a pause took over. Called with mu held.
func (rs *receipts) judge(a *account, rec spec.ProjectRecord, applied bool, unsettled []spec.ServiceStatus, now time.Time) {
	settled := applied && len(unsettled) == 0
	failed := slices.Contains(rec.Failed, a.Release)
	back := failed && rec.Desired != a.Release && rec.Desired == rec.Good
	cause := rec.Causes[a.Release]
	if a.near.IsZero() && rec.Desired == rec.Good {
		a.near = now
	}
	late := !a.near.IsZero() && now.Sub(a.near) >= returnPatience
	switch {
	case rec.Down:
		rs.finish(a, spec.OperationFailed, "the project was taken down")
	case back && settled:
		rs.finish(a, spec.OperationRolledBack, fmt.Sprintf("%s; release %d is back", cause, rec.Desired))
	case back && late:
		rs.finish(a, spec.OperationRolledBack, fmt.Sprintf("%s; release %d is desired again, but it isn't back yet", cause, rec.Desired))
	case back: // on its way
	case rec.Desired != a.Release:
		rs.finish(a, spec.OperationFailed, fmt.Sprintf("replaced by release %d", rec.Desired))
	case rec.Paused != "":
		rs.finish(a, spec.OperationPaused, rec.Paused)
	case rec.Desired == rec.Good && settled:
		rs.finish(a, spec.OperationDone, "")
	case rec.Desired == rec.Good && late:
		rs.finish(a, spec.OperationFailed, notAll(a.Project, unsettled))
	case failed:
		rs.finish(a, spec.OperationFailed, cause)
	}
}

// wanted tells replicas that the project's desired release wants from those that
// are on their way out.
func (l *Loop) wanted(rec spec.ProjectRecord, p plan.Plan) func(*plan.Replica) bool {
	services := map[string]spec.ServiceStatus{}
	if release, ok := l.state.release(rec.Name, rec.Desired); ok && !rec.Down {
		for _, ps := range p.Status {
			for _, s := range ps.Services {
				if _, declared := release.Project.Service(s.Name); declared && ps.Name == rec.Name {
					services[s.Name] = s
				}
			}
		}
	}
	return func(r *plan.Replica) bool {
		s, ok := services[r.Service]
		return ok && s.Generation == r.Generation && r.Number <= s.Wanted+1 // one more is a spare
	}
}

// unwanted reports whether a replica of the project is left that isn't wanted.
func unwanted(o plan.Observed, project string, wanted func(*plan.Replica) bool) bool {
	for i := range o.Replicas {
		if r := &o.Replicas[i]; r.Project == project && !wanted(r) {
			return true
		}
	}
	return false
}

// keepReceipts saves what has changed and forgets what has settled. What can't be
// saved is tried again with the next look. Called with the receipts' lock held.
func (l *Loop) keepReceipts() {
	rs := l.receipts
	var c spec.Commit
	for _, a := range rs.all {
		if a.stale {
			c.Receipts = append(c.Receipts, a.written())
		}
	}
	if len(c.Receipts) == 0 {
		return
	}
	if err := l.state.save(c); err != nil {
		l.cfg.Log.Warn("save receipts", "error", err)
		return
	}
	for _, a := range rs.all {
		a.stale = false
	}
	rs.all = slices.DeleteFunc(rs.all, func(a *account) bool { return !a.Settled.IsZero() })
}

// written is the receipt as it is now.
func (a *account) written() spec.Receipt {
	r := a.Receipt
	open, ended := a.drains()
	r.Steps, r.Draining = a.list(), open
	r.Drained += ended
	return r
}

// Receipts lists the project's kept receipts, newest first. Those of rollouts
// that go on say how it is now.
func (l *Loop) Receipts(_ context.Context, project string) ([]spec.Receipt, error) {
	if _, ok := l.state.project(project); !ok {
		return nil, l.noProject(project)
	}
	live := l.receipts.of(project) // first: one that settles meanwhile is in the store by then
	kept, err := l.cfg.Store.Receipts(project)
	if err != nil {
		return nil, err
	}
	byNumber := map[int]spec.Receipt{}
	for _, r := range kept {
		byNumber[r.Number] = r
	}
	for _, r := range live {
		if byNumber[r.Number].Settled.IsZero() {
			byNumber[r.Number] = r
		}
	}
	return slices.SortedFunc(maps.Values(byNumber), func(a, b spec.Receipt) int { return cmp.Compare(b.Number, a.Number) }), nil
}

// of lists the project's receipts that have yet to settle.
func (rs *receipts) of(project string) []spec.Receipt {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	var out []spec.Receipt
	for _, a := range rs.all {
		if a.Project != project {
			continue
		}
		r := a.written()
		if r.Ended.IsZero() {
			r.Visits = rs.visits(a)
		}
		out = append(out, r)
	}
	return out
}
