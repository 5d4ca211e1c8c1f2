package orchestrator

import (
	"fmt"

	"dunnage/spec"
)

// pausedByHand is the cause of a pause that somebody asked for.
const pausedByHand = "on request"

// steer holds a rollout, lets it go on, or ends the trial of its canary. A
// pause is done at once; the others follow the rollout to its end.
func (l *Loop) steer(op *operation, kind string) error {
	rec, _ := l.state.project(op.Project)
	if rec.Desired == rec.Good {
		return fmt.Errorf("project %s has no rollout under way: release %d has converged: %w", op.Project, rec.Good, spec.ErrRefused)
	}
	switch {
	case kind == "pause" && rec.Paused != "":
		return fmt.Errorf("the rollout of release %d is paused already (%s): %w", rec.Desired, rec.Paused, spec.ErrRefused)
	case kind == "pause":
		rec.Paused = pausedByHand
	case kind == "resume" && rec.Paused == "":
		return fmt.Errorf("the rollout of release %d isn't paused: %w", rec.Desired, spec.ErrRefused)
	case kind == "resume":
		rec.Paused, rec.Since = "", l.cfg.Clock.Now()
		if err := l.pardon(op.Project); err != nil {
			return err
		}
	case kind == "promote":
		rec.Promoted = rec.Desired
	}
	if err := l.state.save(spec.Commit{Projects: []spec.ProjectRecord{rec}}); err != nil {
		return err
	}
	l.events.add(spec.Event{Kind: spec.EventRelease, Project: op.Project, Operation: op.ID, Message: fmt.Sprintf("%s of release %d", kind, rec.Desired)})
	if kind == "pause" {
		l.end(op, spec.OperationDone, "", nil)
		return nil
	}
	l.ops.change(op, func(o *operation) { o.Release = rec.Desired })
	return nil
}

// pardon forgets the failures that paused a rollout, so that it gets all its
// tries again.
func (l *Loop) pardon(project string) error {
	var c spec.Commit
	for _, r := range l.state.replicaRecords() {
		if r.Project == project && r.Failures > 0 {
			r.Failures = 0
			c.Replicas = append(c.Replicas, r)
		}
		if r.Project == project {
			delete(l.failures, r.ID)
		}
	}
	return l.state.save(c)
}
