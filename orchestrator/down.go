package orchestrator

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// down takes the project out of what is desired. Its history and its volumes stay,
// unless r says otherwise.
func (l *Loop) down(op *operation, project string, prev spec.Release, r spec.ChangeRequest) error {
	rec, _ := l.state.project(project)
	rec.Down, rec.Networks, rec.Addresses, rec.Stopped, rec.Warm = true, nil, nil, nil, nil
	rec.Forget = r.Forget
	volumes := prev.Project.Volumes
	if r.Forget { // nobody knows those of earlier releases later
		volumes = l.everyVolume(project)
	}
	if r.Volumes {
		rec.Purge = volumes
	}
	if err := l.state.save(spec.Commit{Projects: []spec.ProjectRecord{rec}}); err != nil {
		return err
	}
	l.ops.change(op, func(o *operation) {
		o.Services = compare(&prev, spec.Release{Project: spec.Project{Name: project}})
	})
	l.warnOfKept(op, r, volumes)
	return nil
}

// warnOfKept says what a down leaves of volumes and, if it forgets the project, of
// secrets.
func (l *Loop) warnOfKept(op *operation, r spec.ChangeRequest, volumes []spec.Volume) {
	var notes []string
	for _, v := range volumes {
		switch {
		case v.External:
			notes = append(notes, fmt.Sprintf("volume %s is external, and is kept", v.ID))
		case r.Volumes:
		case r.Forget:
			notes = append(notes, fmt.Sprintf("volume %s is kept; a deploy of %s finds it again", v.ID, op.Project))
		default:
			notes = append(notes, fmt.Sprintf("volume %s is kept; `dunnage down -p %s --volumes` removes it", v.ID, op.Project))
		}
	}
	if r.Forget {
		for _, id := range l.state.secretIDs() {
			if id.Project == op.Project {
				notes = append(notes, fmt.Sprintf("secret %s is kept; `dunnage secret rm %s` removes it", id, id))
			}
		}
	}
	l.ops.change(op, func(o *operation) { o.Warnings = append(o.Warnings, notes...) })
}

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
	again := "--volumes"
	if rec.Purge = nil; rec.Forget {
		again += " --forget"
		rec.Forget = errors.Join(errs...) == nil // else nobody would know whose they are
	}
	errs = append(errs, l.state.save(spec.Commit{Projects: []spec.ProjectRecord{rec}}))
	if err := errors.Join(errs...); err != nil {
		return removed, fmt.Errorf("volumes are left: %s; `dunnage down -p %s %s` tries again", plain(err), project, again)
	}
	return removed, nil
}

// everyVolume are those of the project's kept releases, and ownVolumes those of them
// that aren't external.
func (l *Loop) everyVolume(project string) []spec.Volume {
	var out []spec.Volume
	for _, r := range l.state.history(project) {
		for _, v := range r.Project.Volumes {
			if !slices.ContainsFunc(out, func(o spec.Volume) bool { return o.ID == v.ID }) {
				out = append(out, v)
			}
		}
	}
	return out
}

func (l *Loop) ownVolumes(project string) []spec.Volume {
	return slices.DeleteFunc(l.everyVolume(project), func(v spec.Volume) bool { return v.External })
}

// leaves reports whether there is anything for the down of a project that isn't
// there, or on its way down.
func (l *Loop) leaves(project string, r spec.ChangeRequest) bool {
	_, kept := l.state.project(project)
	return l.ops.busy(project) || r.Forget && kept || r.Volumes && l.hasVolumes(project)
}

// hasVolumes reports whether there is anything for `down --volumes` of a project
// that is down.
func (l *Loop) hasVolumes(project string) bool {
	return slices.ContainsFunc(l.ownVolumes(project), func(v spec.Volume) bool {
		there, err := l.cfg.Volumes.VolumeExists(l.ctx, v.ID)
		return there || err != nil
	})
}

// goToo notes that the volumes of a project that is down, or on its way, or all that
// is kept of it, are to go when its last replica has gone.
func (l *Loop) goToo(op *operation, project string, r spec.ChangeRequest) error {
	rec, _ := l.state.project(project)
	if !rec.Down || !r.Volumes && !r.Forget {
		return nil
	}
	if r.Volumes {
		rec.Purge = l.ownVolumes(project)
	}
	if rec.Forget = rec.Forget || r.Forget; r.Forget {
		l.warnOfKept(op, r, l.existing(l.everyVolume(project)))
	}
	return l.state.save(spec.Commit{Projects: []spec.ProjectRecord{rec}})
}

// existing are those of the volumes that are there, as far as that is known.
func (l *Loop) existing(volumes []spec.Volume) []spec.Volume {
	return slices.DeleteFunc(volumes, func(v spec.Volume) bool {
		there, err := l.cfg.Volumes.VolumeExists(l.ctx, v.ID)
		return !there && err == nil
	})
}

// finishDowns does what is left of downs that an agent before this one began:
// removes the volumes of `down --volumes`, since nobody can ask for it again, and
// what is kept of a project after `down --forget`.
func (l *Loop) finishDowns(o plan.Observed) {
	for _, project := range l.state.projectNames() {
		rec, _ := l.state.project(project)
		if len(rec.Purge) == 0 && !rec.Forget || !rec.Down || l.ops.busy(project) || remains(o, project) {
			continue
		}
		if _, err := l.purgeVolumes(project); err != nil {
			l.cfg.Log.Error("remove volumes of a project that is down", "project", project, "error", err)
			l.events.add(spec.Event{Kind: spec.EventProblem, Project: project, Message: plain(err)})
		}
		if _, err := l.forgetProject(project); err != nil {
			l.cfg.Log.Error("forget a project that is down", "project", project, "error", err)
		}
	}
}

// remains reports whether a replica of the project is left, or a namespace, link or
// files that may be one's.
func remains(o plan.Observed, project string) bool {
	return slices.ContainsFunc(o.Replicas, func(r plan.Replica) bool {
		return r.Project == project || r.Project == "" && strings.HasPrefix(r.ID, project+"-")
	})
}

// forgetProject drops all that is kept of a project that is to be forgotten, of which nothing
// is left: its record, releases and receipts, in one commit. The images that its
// releases held follow from that: they are let go of here, or by the next agent.
// It returns the releases' numbers, oldest first.
func (l *Loop) forgetProject(project string) ([]int, error) {
	rec, ok := l.state.project(project)
	if !ok || !rec.Forget {
		return nil, nil
	}
	var numbers []int
	var old []spec.ReleaseRecord
	for _, r := range l.state.history(project) {
		numbers = append(numbers, r.Number)
		old = append(old, spec.ReleaseRecord{Project: project, Release: r})
	}
	if err := l.state.save(spec.Commit{DropProjects: []string{project}}); err != nil {
		return nil, err
	}
	l.receipts.forget(project)
	l.unpin(old)
	l.events.add(spec.Event{Kind: spec.EventRemoved, Project: project, Message: spec.ForgottenText(numbers)})
	return numbers, nil
}
