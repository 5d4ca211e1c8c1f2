package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"dunnage/spec"
)

// target is the release that a rollback goes to: number, or with 0 the one that
// ran before.
func (l *Loop) target(project string, number int) (spec.ProjectRecord, spec.Release, error) {
	rec, ok := l.state.project(project)
	if !ok {
		return rec, spec.Release{}, l.noProject(project)
	}
	if number == 0 {
		if number = l.before(rec); number == 0 {
			next := "`dunnage history -p " + project + "` lists all, `dunnage rollback -p " + project + " N` takes one"
			if len(l.state.history(project)) < 2 {
				next = "`dunnage down -p " + project + "` ends it"
			}
			return rec, spec.Release{}, fmt.Errorf("project %s has no other release that ran and wasn't left; %s: %w", project, next, spec.ErrRefused)
		}
	}
	target, ok := l.state.release(project, number)
	if !ok {
		return rec, target, fmt.Errorf("release %d of project %s: %w; `dunnage history -p %s` lists the kept ones", number, project, spec.ErrNotFound, project)
	}
	return rec, target, nil
}

// rollback makes an earlier release desired again: the one before the present
// one, or the one that is named.
func (l *Loop) rollback(op *operation, project string, number int) error {
	rec, target, err := l.target(project, number)
	if err != nil {
		return err
	}
	number = target.Number
	prev := l.present(project)
	cold := l.coldNotes(rec, prev, target)
	receipt := l.draft(op, &rec, target)
	var locked error
	if wayOut := !rec.Down && number == rec.Good; !wayOut { // of a rollout, whose old replicas may still run: the agent may go it by itself too
		locked = l.canOpen(prev, target)
	}
	if err := errors.Join(locked, l.lostPins(target), l.reclaim(target)); err != nil {
		return err
	}
	networks, err := l.alloc.networks(rec, target.Project)
	if err != nil {
		return err
	}
	if rec.Down {
		rec.Good = 0
	} else if rec.Desired != number {
		rec = gaveUp(rec)
		rec.Ran, rec.Left = without(rec.Ran, rec.Desired), append(without(rec.Left, rec.Desired), rec.Desired)
	}
	rec.Down, rec.Purge, rec.Forget, rec.Desired, rec.Networks = false, nil, false, number, networks
	rec.Since, rec.Backward, rec.Paused, rec.Reached, rec.Ailing = l.cfg.Clock.Now(), true, "", nil, nil
	rec.Secrets = l.state.currentPins(target.Project)
	if rec.Addresses, err = l.alloc.leases(rec, target.Project, l.cfg.Clock.Now()); err != nil {
		return err
	}
	hung, hungNotes := l.endHung(project, target)
	if err := l.state.save(spec.Commit{Projects: []spec.ProjectRecord{rec}, Replicas: hung, Receipts: []spec.Receipt{receipt}}); err != nil {
		return err
	}
	l.receipts.begin(receipt)
	if err := l.pardon(project); err != nil {
		l.cfg.Log.Warn("let failed replicas begin anew", "project", project, "error", err) // they go on at their own pace
	}
	l.ops.change(op, func(o *operation) {
		o.Release, o.Services = number, compare(prev, target)
		o.Warnings = slices.Concat(o.Warnings, l.earlierSecrets(target), hungNotes, cold)
		if rec.Good == number { // it has converged already, and yet it may not be back
			o.patience = l.cfg.Clock.Now().Add(changePatience)
		}
	})
	l.events.add(spec.Event{Kind: spec.EventRelease, Project: project, Operation: op.ID, Message: fmt.Sprintf("rollback to release %d", number)})
	return nil
}

// before is the release that a rollback without a number means: of a project
// that is down, the one that ran last; else the one that ran before the present
// one. 0 = there is none. One that failed, or that somebody has rolled back
// from, isn't meant.
func (l *Loop) before(rec spec.ProjectRecord) int {
	if rec.Down {
		return rec.Desired
	}
	for _, n := range slices.Backward(rec.Ran) {
		if _, kept := l.state.release(rec.Name, n); kept && n != rec.Desired {
			return n
		}
	}
	return 0
}

// reclaim refuses a rollback whose images or host ports are no longer there
// for it.
func (l *Loop) reclaim(target spec.Release) error {
	var errs []error
	ctx, cancel := context.WithTimeout(l.ctx, lookTimeout) // the loop waits for it
	defer cancel()
	for _, s := range target.Project.Services {
		image := target.Images[s.Name]
		if _, err := l.cfg.Images.Resolve(ctx, image.Pinned()); errors.Is(err, spec.ErrNotFound) {
			errs = append(errs, fmt.Errorf("service %s: image %s is no longer on this host; `dunnage image pull %s` gets it back, or `dunnage image load FILE` without a registry", s.Name, image.Pinned(), image.Pinned()))
		} else if err != nil {
			return unserved(err)
		}
	}
	if err := refused(errs); err != nil {
		return err
	}
	p := target.Project
	p.Services = slices.Clone(p.Services)
	return l.resolvePorts(l.ctx, &p)
}
