package orchestrator

import (
	"fmt"
	"slices"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// named lists the release's replicas that names mean which are no service's, by
// name.
func (l *Loop) named(r spec.Release, names []string) map[string]spec.ReplicaRecord {
	out := map[string]spec.ReplicaRecord{}
	for _, name := range names {
		if _, service := r.Project.Service(name); service {
			continue
		}
		for _, rec := range l.state.replicaRecords() {
			s, ok := r.Project.Service(rec.Service)
			if ok && rec.Project == r.Project.Name && rec.Number <= s.Replicas && rec.Generation == r.Generation(s.Name) &&
				spec.ReplicaIsCalled(rec.Project, rec.Service, rec.ID, name) {
				out[name] = rec
			}
		}
	}
	return out
}

// restartAlone has replicas restarted as they are, each with another ready in its
// stead where its service may have one more. No release comes of it: nothing else
// differs afterwards.
func (l *Loop) restartAlone(op *operation, prev spec.Release, names []string, replicas map[string]spec.ReplicaRecord) error {
	for _, name := range names {
		rec, ok := replicas[name]
		_, service := prev.Project.Service(name)
		switch {
		case service:
			return fmt.Errorf("%s is a service, and others of what is to be restarted are replicas: restart them one after the other: %w", name, spec.ErrRefused)
		case !ok:
			return fmt.Errorf("service or replica %s: %w in project %s; `dunnage ps -p %s` lists them", name, spec.ErrNotFound, prev.Project.Name, prev.Project.Name)
		case !rec.Running:
			return fmt.Errorf("%s isn't running, so it can't be restarted alone; `dunnage restart -p %s %s` replaces all of the service: %w", name, rec.Project, rec.Service, spec.ErrRefused)
		}
	}
	if p, _ := l.state.project(prev.Project.Name); p.Desired != p.Good {
		return fmt.Errorf("release %d has yet to come in, so no replica is restarted alone; `dunnage restart -p %s SERVICE` replaces all of a service, by another release: %w", p.Desired, p.Name, spec.ErrRefused)
	}
	commit := spec.Commit{}
	var services []spec.ServiceOutcome
	for _, name := range names {
		rec := replicas[name]
		rec.Asked = true
		commit.Replicas = append(commit.Replicas, rec)
		if !slices.ContainsFunc(services, func(s spec.ServiceOutcome) bool { return s.Name == rec.Service }) {
			services = append(services, spec.ServiceOutcome{Name: rec.Service, Change: spec.ChangeRestart})
		}
	}
	l.ops.change(op, func(o *operation) {
		o.patience, o.Services = l.cfg.Clock.Now().Add(changePatience), services
		for _, rec := range commit.Replicas {
			o.alone = append(o.alone, rec.ID)
		}
	})
	l.recording.Lock()
	defer l.recording.Unlock()
	return l.state.save(commit)
}

// unask calls off what is left of a restart of some alone. A replica that has its
// stop signal comes back as ever.
func (l *Loop) unask(op *operation) error {
	l.recording.Lock()
	defer l.recording.Unlock()
	commit := spec.Commit{}
	for _, rec := range l.state.replicaRecords() {
		if slices.Contains(op.alone, rec.ID) && rec.Asked && !rec.Requested {
			rec.Asked = false
			commit.Replicas = append(commit.Replicas, rec)
		}
	}
	if len(commit.Replicas) == 0 {
		return nil
	}
	return l.state.save(commit)
}

// restarted reports whether the replicas of a restart of some alone are back.
func (o *operation) restarted(all []plan.Replica) bool {
	return !slices.ContainsFunc(all, func(r plan.Replica) bool {
		return slices.Contains(o.alone, r.ID) && (r.Record.Asked || !r.Usable())
	})
}
