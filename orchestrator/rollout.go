package orchestrator

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"dunnage/spec"
)

// pausedByHand is the cause of a pause that somebody asked for.
const pausedByHand = "on request"

// steer holds a rollout, lets it go on, or ends the trial of its canary. A
// pause is done with the next look; the others follow the rollout to its end.
func (l *Loop) steer(op *operation, kind string) error {
	rec, _ := l.state.project(op.Project)
	if rec.Desired == rec.Good {
		return fmt.Errorf("project %s has no rollout under way: release %d has converged: %w", op.Project, rec.Good, spec.ErrRefused)
	}
	release, _ := l.state.release(op.Project, rec.Desired)
	switch {
	case kind == "pause" && rec.Paused != "":
		return fmt.Errorf("the rollout of release %d is paused already (%s): %w", rec.Desired, rec.Paused, spec.ErrRefused)
	case kind == "pause":
		rec.Paused = pausedByHand
	case kind == "resume" && rec.Paused == "" && !slices.Contains(rec.Failed, rec.Desired):
		return fmt.Errorf("the rollout of release %d isn't paused: %w", rec.Desired, spec.ErrRefused)
	case kind == "resume":
		rec.Paused, rec.Reached, rec.Since = "", nil, l.cfg.Clock.Now()
		rec.Failed, rec.Causes = without(rec.Failed, rec.Desired), explained(rec.Causes, rec.Desired, "")
		if err := l.pardon(op.Project); err != nil {
			return err
		}
	case kind == "promote" && rec.Paused != "":
		return fmt.Errorf("the rollout of release %d is paused (%s); `dunnage rollout resume -p %s` lets it go on: %w", rec.Desired, rec.Paused, rec.Name, spec.ErrRefused)
	case kind == "promote" && !hasCanary(release):
		return fmt.Errorf("release %d has no canary on trial: %w", rec.Desired, spec.ErrRefused)
	case kind == "promote":
		rec.Promoted = rec.Desired
	}
	if err := l.state.save(spec.Commit{Projects: []spec.ProjectRecord{rec}}); err != nil {
		return err
	}
	l.events.add(spec.Event{Kind: spec.EventRelease, Project: op.Project, Operation: op.ID, Message: fmt.Sprintf("%s of release %d", kind, rec.Desired)})
	if kind == "pause" {
		return nil // the next look ends it, and shows it
	}
	var good *spec.Release
	if r, ok := l.state.release(op.Project, rec.Good); ok {
		good = &r
	}
	l.ops.change(op, func(o *operation) { o.Release, o.Services = rec.Desired, compare(good, release) })
	l.receipts.follow(op.Project, rec.Desired, op.ID)
	return nil
}

func hasCanary(r spec.Release) bool {
	return slices.ContainsFunc(r.Project.Services, func(s spec.Service) bool { return s.Canary != nil })
}

// pardon lets the project's replicas begin anew: a new release may cure what
// they failed of, and a resumed one is to get all its tries again. Those that
// had been given up start once more, those that run and never passed their probes
// are probed anew, and accepted anew; jobs that are done stay done. No services
// means all.
func (l *Loop) pardon(project string, services ...string) error {
	l.retry(project)
	desired := l.present(project)
	var c spec.Commit
	var again []string
	for _, r := range l.state.replicaRecords() {
		if r.Project != project || len(services) > 0 && !slices.Contains(services, r.Service) {
			continue
		}
		if desired != nil && r.Generation == desired.Generation(r.Service) { // others are on their way out
			again = append(again, r.ID)
		}
		failed := r.Exit != nil && r.Exit.Code != 0 && !r.Running && !r.Requested
		if r.Failures == 0 && !failed {
			continue
		}
		r.Failures = 0
		if failed {
			r.Exit = nil
		}
		c.Replicas = append(c.Replicas, r)
	}
	l.cfg.Health.Again(again)
	if len(c.Replicas) == 0 {
		return nil
	}
	return l.state.save(c)
}

// retry lets what failed to be done to the project's replicas be tried again at
// once: who asks for a change may have put right what it failed of. Not all of
// them have a record.
func (l *Loop) retry(project string) {
	maps.DeleteFunc(l.failures, func(id string, _ failure) bool { return strings.HasPrefix(id, project+"-") })
}
