package orchestrator

import (
	"slices"

	"dunnage/spec"
)

// What a release leaves as it is says nothing of it. Of one that has converged before
// it, the planner knows what that is; until one has, a service that failed the release
// before would fail all others too, and none could come in but one that mends it.

// failing lists the services of the project that fail now: a replica of theirs is
// unhealthy, has ended or can't be made, or clients don't reach them. One that only
// starts, or waits for another, isn't among them.
func (l *Loop) failing(project string) []string {
	var out []string
	records := l.state.replicaRecords()
	for _, s := range servicesOf(l.status.Load().Projects, project) {
		own := func(k spec.ReplicaKey) bool {
			return k.Project == project && k.Service == s.Name && k.Generation == s.Generation
		}
		bad := s.Unreachable != "" || slices.ContainsFunc(s.Replicas, func(r spec.ReplicaStatus) bool {
			failed := r.State == spec.StateUnhealthy || r.State == spec.StateBackoff || r.State == spec.StateFailed
			return failed && r.Generation == s.Generation
		}) || slices.ContainsFunc(records, func(r spec.ReplicaRecord) bool { // it may run between two exits
			return r.Failures > 0 && own(r.ReplicaKey)
		})
		for n := range s.Wanted { // of which there may be nothing to see
			bad = bad || l.failures[spec.ReplicaID(project, s.Name, s.Generation, n+1)].count > 0
		}
		if bad && !s.Stopped {
			out = append(out, s.Name)
		}
	}
	return out
}

// ailing lists the services that a release neither fails by nor waits for, before any
// of the project's has converged: those that fail, or wait for one that does, since
// the release before was given up, and that the operation leaves as they are. One
// that asks for the same again gives all of them another try, and what waits for one
// of them is judged by it.
func (l *Loop) ailing(op *operation, rec spec.ProjectRecord, p spec.Project) []string {
	if rec.Good != 0 || !slices.Contains(rec.Failed, rec.Desired) && len(rec.Ailing) == 0 {
		return nil
	}
	var moving, out []string
	for _, s := range op.Services {
		if moves(s) {
			moving = append(moving, s.Name)
		}
	}
	if len(moving) == 0 {
		return nil
	}
	for _, s := range p.Services {
		needs := append(needed(p, s.Name, nil), s.Name)
		left := !slices.Contains(moving, s.Name) && slices.ContainsFunc(needs, func(n string) bool {
			return slices.Contains(op.failing, n) && !slices.Contains(moving, n)
		})
		before := slices.Contains(rec.Failed, rec.Desired) || slices.Contains(rec.Ailing, s.Name)
		if left && before && !slices.ContainsFunc(moving, func(m string) bool { return slices.Contains(needed(p, m, nil), s.Name) }) {
			out = append(out, s.Name)
		}
	}
	return out
}

// needed adds to the names those of the services that the one waits for, by depends_on
// or to share their network, and so on.
func needed(p spec.Project, name string, names []string) []string {
	s, _ := p.Service(name)
	on := []string{s.Container.Joins}
	for _, d := range s.DependsOn {
		on = append(on, d.Service)
	}
	for _, n := range on {
		if n != "" && !slices.Contains(names, n) {
			names = needed(p, n, append(names, n))
		}
	}
	return names
}
