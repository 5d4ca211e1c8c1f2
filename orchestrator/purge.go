package orchestrator

import (
	"errors"
	"fmt"
	"slices"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// purgeVolumes removes the volumes of a project that is down, but for external
// ones: those belong to somebody else. It names those that it removed, and with an
// error some are left: what fails isn't tried again.
func (l *Loop) purgeVolumes(project string) (removed []string, err error) {
	rec, ok := l.state.project(project)
	if !ok || len(rec.Purge) == 0 {
		return nil, nil
	}
	var errs []error
	for _, v := range rec.Purge {
		if v.External {
			continue
		}
		there, err := l.cfg.Volumes.VolumeExists(l.ctx, v.ID)
		if err == nil && there {
			err = gone(l.cfg.Volumes.RemoveVolume(l.ctx, v.ID))
		}
		if err == nil && there {
			removed = append(removed, v.ID)
			l.events.add(spec.Event{Kind: spec.EventRemoved, Project: project, Message: fmt.Sprintf("volume %s removed, with its data", v.ID)})
		}
		errs = append(errs, err)
	}
	rec.Purge = nil
	errs = append(errs, l.state.save(spec.Commit{Projects: []spec.ProjectRecord{rec}}))
	if err := errors.Join(errs...); err != nil {
		return removed, fmt.Errorf("volumes are left: %s; `dunnage down -p %s --volumes` tries again", plain(err), project)
	}
	return removed, nil
}

// ownVolumes are those of the project's kept releases, but for external ones.
func (l *Loop) ownVolumes(project string) []spec.Volume {
	var out []spec.Volume
	for _, r := range l.state.history(project) {
		for _, v := range r.Project.Volumes {
			if !v.External && !slices.ContainsFunc(out, func(o spec.Volume) bool { return o.ID == v.ID }) {
				out = append(out, v)
			}
		}
	}
	return out
}

// hasVolumes reports whether there is anything for `down --volumes` of a project
// that is down.
func (l *Loop) hasVolumes(project string) bool {
	return slices.ContainsFunc(l.ownVolumes(project), func(v spec.Volume) bool {
		there, err := l.cfg.Volumes.VolumeExists(l.ctx, v.ID)
		return there || err != nil
	})
}

// purgeToo notes that the volumes of a project that is down, or on its way, are
// to go when its last replica has gone.
func (l *Loop) purgeToo(project string, volumes bool) error {
	rec, _ := l.state.project(project)
	if !volumes || !rec.Down {
		return nil
	}
	rec.Purge = l.ownVolumes(project)
	return l.state.save(spec.Commit{Projects: []spec.ProjectRecord{rec}})
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
		if _, err := l.purgeVolumes(project); err != nil {
			l.cfg.Log.Error("remove volumes of a project that is down", "project", project, "error", err)
			l.events.add(spec.Event{Kind: spec.EventProblem, Project: project, Message: plain(err)})
		}
	}
}
