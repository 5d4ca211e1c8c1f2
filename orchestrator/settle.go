package orchestrator

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// settle takes the plan's verdicts: it marks releases that converged, goes
// back from those that can't, and ends operations. It reports whether something
// else is desired now.
func (l *Loop) settle(p plan.Plan, o plan.Observed) (changed bool) {
	for _, r := range p.Rollout {
		changed = l.settleRollout(r, p.Status) || changed
	}
	for _, op := range l.ops.rolling() {
		l.settleOperation(op, p, o)
	}
	return changed
}

func (l *Loop) settleRollout(r plan.Rollout, now []spec.ProjectStatus) (changed bool) {
	rec, ok := l.state.project(r.Project)
	if !ok || rec.Desired == rec.Good {
		return false
	}
	desired, warm := rec.Desired, rec.Warm
	if !slices.Contains(rec.Failed, desired) { // else it has been told
		r.Failed = l.blamed(r)
	}
	switch {
	case r.Converged:
		rec.Warm = l.warmed(rec, now)
		rec.Good, rec.Held, rec.Paused, rec.Reached, rec.Ailing = rec.Desired, nil, "", nil, nil
		rec.Ran = append(without(rec.Ran, rec.Desired), rec.Desired)
		rec.Failed, rec.Left = without(rec.Failed, rec.Desired), without(rec.Left, rec.Desired)
		rec.Causes = explained(rec.Causes, rec.Desired, "")
	case r.Failed == "":
		return false
	case r.Action == spec.FailurePause:
		l.cfg.Log.Warn("rollout paused", "project", rec.Name, "release", rec.Desired, "cause", r.Failed)
		rec.Paused = r.Failed
		l.showPause(rec)
		l.endRollouts(r, spec.OperationPaused, fmt.Sprintf("%s; `dunnage rollout resume -p %s` tries again, `dunnage rollback -p %s` goes back", r.Failed, rec.Name, rec.Name))
	case r.Action == spec.FailureRollback && rec.Good != 0:
		l.cfg.Log.Warn("rolling back", "project", rec.Name, "from", rec.Desired, "to", rec.Good, "cause", r.Failed)
		l.goBack(r, rec.Good)
		rec.Failed = append(without(rec.Failed, rec.Desired), rec.Desired)
		rec.Causes = explained(rec.Causes, rec.Desired, r.Failed)
		rec.Desired = rec.Good
		rec.Stopped, rec.Held = rec.Held, nil
		rec.Since, rec.Backward = l.cfg.Clock.Now(), true
		if good, ok := l.state.release(rec.Name, rec.Good); ok {
			rec.Secrets = l.decided(rec.Secrets, good.Project)
		}
	default:
		why := "there is no earlier release to go back to"
		if rec.Good != 0 {
			why = "its failure_action is continue"
		}
		l.endRollouts(r, spec.OperationFailed, fmt.Sprintf("%s; %s, and %s", r.Failed, why, outlook(r.Project, servicesOf(now, r.Project))))
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
	if r.Converged {
		l.tellWarm(rec, warm, now)
		l.tellTolerated(r.Project, now)
	}
	l.Look()
	return rec.Desired != desired
}

// showPause adds the pause to what people see: who is told of it looks before the
// next look may have been.
func (l *Loop) showPause(rec spec.ProjectRecord) {
	st := *l.status.Load()
	st.Projects = slices.Clone(st.Projects)
	for i := range st.Projects {
		if st.Projects[i].Name == rec.Name {
			st.Projects[i].Paused = rec.Paused
		}
	}
	l.status.Store(&st)
}

// tellTolerated tells of the failures that a release has converged with.
func (l *Loop) tellTolerated(project string, now []spec.ProjectStatus) {
	for _, p := range now {
		for _, s := range p.Services {
			if p.Name == project && s.Tolerated != "" {
				l.events.add(spec.Event{Kind: spec.EventProblem, Project: project, Service: s.Name, Message: s.Name + ": " + s.Tolerated})
			}
		}
	}
}

// decided adds to the versions that a failed release was to bring those of what
// only the earlier one declares. A version that came since isn't decided about.
func (l *Loop) decided(tried spec.SecretPins, back spec.Project) spec.SecretPins {
	out := l.state.currentPins(back)
	maps.Copy(out, tried)
	return out
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
		l.quote(op, r.Culprit, r.Failed)
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
		l.quote(op, r.Culprit, r.Failed)
		l.ops.change(op, func(o *operation) {
			o.State, o.Cause, o.Release, o.patience = spec.OperationReturning, r.Failed, good, until
		})
	}
	l.events.add(spec.Event{Kind: spec.EventRelease, Project: r.Project, Message: fmt.Sprintf("back to release %d: %s", good, r.Failed)})
}

// quotedLines is how much of a failed replica's log an operation keeps.
const quotedLines = 10

// quote keeps with the operation what the check printed that the replica fails by,
// where the cause doesn't have all of it, and what the replica wrote last of this
// release: an earlier one with the same content wrote to the same log. That is
// read before the next wave begins to remove it.
func (l *Loop) quote(op *operation, culprit spec.ReplicaKey, cause string) {
	if culprit.ID == "" {
		return
	}
	rec, _ := l.state.project(op.Project)
	lines, err := l.cfg.Engine.Tail(l.ctx, culprit, rec.Since, quotedLines)
	if err != nil {
		l.cfg.Log.Warn("read the log of a failed replica", "replica", culprit.ID, "error", err)
	}
	output := l.cfg.Health.Output(culprit.ID)
	if len(output) == 1 && strings.Contains(cause, output[0]) {
		output = nil
	}
	l.ops.change(op, func(o *operation) { o.Replica, o.Output, o.Log = culprit.ID, output, lines })
}

// settleOperation ends an operation whose aim is reached.
func (l *Loop) settleOperation(op *operation, p plan.Plan, o plan.Observed) {
	rec, _ := l.state.project(op.Project)
	applied := o.RulesEqual && p.Routing.Equal(o.Applied)
	if op.restarted(o.Replicas) {
		l.clock(op, p)
	}
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
	if op.State != spec.OperationReturning && (!op.patience.IsZero() || !op.arrived.IsZero()) {
		late = late || stuck(p, op.Project, op.awaited())
	}
	there := op.State == spec.OperationRolling && l.reached(op, rec, p) && op.restarted(o.Replicas) && applied
	switch {
	case op.Kind == "pause":
		l.end(op, spec.OperationDone, "", nil) // who asked for it sees it in the status now
	case op.Kind == "down":
		if !remains(o, op.Project) {
			l.endDown(op)
		}
	case op.State == spec.OperationReturning && applied && len(beside(unsettled(p, op.Project, nil), op.failing)) == 0:
		l.end(op, spec.OperationRolledBack, fmt.Sprintf("%s; release %d is back", op.Cause, op.Release), l.outcomes(op))
	case op.State == spec.OperationReturning && late:
		l.end(op, spec.OperationRolledBack, fmt.Sprintf("%s; release %d is desired again, but it isn't back yet", op.Cause, op.Release), l.outcomes(op))
	case op.State == spec.OperationReturning:
	case there && !late && len(op.ailing) > 0 && !settled(p, op.Project, op.ailing) && !stuck(p, op.Project, op.ailing):
		// The release may have cured those too, which takes them as long as to be restarted.
	case there:
		l.end(op, spec.OperationDone, "", l.outcomes(op))
	case late:
		l.end(op, spec.OperationFailed, notAll(op.Project, unsettled(p, op.Project, op.awaited())), l.outcomes(op))
	}
}

// reached reports whether what the operation asked for is true: its release
// has converged and what that changes is ready or, where there is no new one,
// all is as it should be. A release converges for all that ails what serves
// already, such as replicas that crash while others are taken away.
func (l *Loop) reached(op *operation, rec spec.ProjectRecord, p plan.Plan) bool {
	if op.Release > 0 && op.patience.IsZero() && rec.Good != op.Release {
		return false
	}
	left := unsettled(p, op.Project, op.awaited())
	if op.Kind == "start" && rec.Paused != "" { // it lets nothing more in
		left = slices.DeleteFunc(left, func(s spec.ServiceStatus) bool { return s.Waiting == "paused: "+rec.Paused })
	}
	return len(left) == 0
}

// awaited lists the services that are to be as wanted when the operation ends, nil
// = all.
func (o *operation) awaited() []string {
	switch {
	case o.Release > 0 && o.patience.IsZero():
		return o.changed()
	case o.Kind == "stop" || o.Kind == "start" || len(o.alone) > 0:
		return o.names()
	}
	return nil
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
	removed, err := l.purgeVolumes(op.Project)
	l.ops.change(op, func(o *operation) { o.Removed = removed })
	if err != nil {
		l.end(op, spec.OperationFailed, "down, but "+plain(err), nil)
		return
	}
	forgot, err := l.forgetProject(op.Project)
	l.ops.change(op, func(o *operation) { o.Forgot = forgot })
	if err != nil {
		l.end(op, spec.OperationFailed, fmt.Sprintf("down, but not forgotten: %s; the agent goes on trying", plain(err)), nil)
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
	return len(unsettled(p, project, services)) == 0
}

// unsettled lists the services of the project, nil = of all, that aren't.
func unsettled(p plan.Plan, project string, services []string) (out []spec.ServiceStatus) {
	for _, s := range servicesOf(p.Status, project) {
		waits := s.Waiting != ""
		if s.Stopped {
			waits = slices.ContainsFunc(s.Replicas, func(r spec.ReplicaStatus) bool { return r.Pid != 0 })
		}
		if waits && (services == nil || slices.Contains(services, s.Name)) {
			out = append(out, s)
		}
	}
	return out
}

// beside lists those of the services that aren't among the named ones.
func beside(services []spec.ServiceStatus, names []string) []spec.ServiceStatus {
	return slices.DeleteFunc(services, func(s spec.ServiceStatus) bool { return slices.Contains(names, s.Name) })
}

func servicesOf(all []spec.ProjectStatus, project string) []spec.ServiceStatus {
	i := slices.IndexFunc(all, func(s spec.ProjectStatus) bool { return s.Name == project })
	if i < 0 {
		return nil
	}
	return all[i].Services
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
			o := spec.ServiceOutcome{Name: s.Name, Change: spec.ChangeNone, Ready: s.Ready, Wanted: s.Wanted, Ports: s.Ports, Detail: cmp.Or(s.Waiting, s.Tolerated)}
			for _, c := range op.Services {
				if c.Name == s.Name {
					o.Change, o.Duration = c.Change, c.Duration
				}
			}
			if o.Change == spec.ChangeRemove && s.Orphan {
				o.Ready, o.Wanted, o.Ports, o.Detail = 0, 0, nil, "goes when the release has converged"
			}
			if op.State == spec.OperationReturning && o.Change != spec.ChangeNone && o.Change != spec.ChangeOrphan {
				o.Change, o.Duration = spec.ChangeBack, 0 // what it was to become is gone
			}
			if (o.Change == spec.ChangeNone || o.Change == spec.ChangeOrphan) && o.Detail != "" && slices.Contains(op.failing, s.Name) {
				o.Detail = "was failing before this release, which leaves it as it is: " + o.Detail
			}
			if serves := s.Meanwhile(); serves != "" && s.Ready < s.Wanted {
				o.Detail = strings.TrimSuffix(serves+"; "+o.Detail, "; ")
			}
			if s.Stopped {
				o.Ports = nil
				if o.Change != spec.ChangeStop {
					o.Detail = fmt.Sprintf("is stopped; `dunnage start -p %s %s` starts it", op.Project, s.Name)
				}
			}
			out = append(out, o)
		}
	}
	return out
}
