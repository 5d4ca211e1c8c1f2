package orchestrator

import (
	"errors"
	"slices"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// purgeVolumes removes the volumes of a project that is down, but for external
// ones: those belong to somebody else. What fails isn't tried again.
func (l *Loop) purgeVolumes(project string) error {
	rec, ok := l.state.project(project)
	if !ok || len(rec.Purge) == 0 {
		return nil
	}
	var errs []error
	for _, v := range rec.Purge {
		if !v.External {
			errs = append(errs, gone(l.cfg.Volumes.RemoveVolume(l.ctx, v.ID)))
		}
	}
	rec.Purge = nil
	errs = append(errs, l.state.save(spec.Commit{Projects: []spec.ProjectRecord{rec}}))
	return errors.Join(errs...)
}

// purgeLeft removes the volumes of projects whose `down --volumes` an agent
// before this one began: nobody can ask for it again, since they are down.
func (l *Loop) purgeLeft(o plan.Observed) {
	for _, project := range l.state.projectNames() {
		rec, _ := l.state.project(project)
		there := func(r plan.Replica) bool { return r.Project == project }
		if len(rec.Purge) == 0 || !rec.Down || l.ops.busy(project) || slices.ContainsFunc(o.Replicas, there) {
			continue
		}
		if err := l.purgeVolumes(project); err != nil {
			l.cfg.Log.Error("remove volumes of a project that is down", "project", project, "error", err)
			l.events.add(spec.Event{Kind: spec.EventProblem, Project: project, Message: "volumes are left: " + plain(err)})
		}
	}
}
