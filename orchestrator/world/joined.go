package world

import (
	"maps"
	"slices"

	"dunnage/spec"
)

// sharing lists the replica and those that join its network.
func (w *World) sharing(id string) []string {
	out := []string{id}
	for _, other := range slices.Sorted(maps.Keys(w.containers)) {
		if other != id && w.containers[other].req.NetNS == w.Namespace(id) {
			out = append(out, other)
		}
	}
	return out
}

// desired is the release that the store wants of the project.
func (w *World) desired(project string) (spec.Release, spec.ProjectRecord) {
	p := w.state.projects[project]
	return w.state.releases[project][p.Desired], p
}

// superseded reports whether an update takes the container's place, and that of
// who it joins, which runs: its connections count as much as theirs.
func (w *World) superseded(c *container) bool {
	if owner := w.containers[w.state.replicas[c.key.ID].Joins]; owner == nil || owner.phase != spec.PhaseRunning {
		return false
	}
	r, p := w.desired(c.key.Project)
	s, ok := r.Project.Service(c.key.Service)
	return ok && !p.Down && r.Project.InStep(s) && r.Generation(s.Name) != c.key.Generation &&
		s.Replicas > 0 && !slices.Contains(p.Stopped, s.Name)
}

// checkJoined notes a signal that takes a replica from the network of one that
// connections still go to.
func (w *World) checkJoined(c *container) {
	if !w.superseded(c) {
		return
	}
	owner := w.state.replicas[c.key.ID].Joins
	for _, s := range w.kernel.Services {
		if slices.ContainsFunc(s.Backends, func(b spec.Backend) bool { return b.Replica == owner }) {
			w.violate("%s is signalled while rules send connections to %s, which it joins", c.key.ID, owner)
			return
		}
	}
}

// checkSwitch notes a generation that begins to take connections from another
// one before those beside it serve.
func (w *World) checkSwitch(next spec.Routing) {
	for _, s := range next.Services {
		r, p := w.desired(s.Project)
		gen := r.Generation(s.Service)
		of := func(id string) string { return w.state.replicas[id].Generation }
		was := w.backends(s)
		if !slices.ContainsFunc(was, func(b spec.Backend) bool { return of(b.Replica) != gen && w.serves(b.Replica) }) ||
			slices.ContainsFunc(was, func(b spec.Backend) bool { return of(b.Replica) == gen }) {
			continue
		}
		for _, j := range r.Project.Services {
			lenient := j.Update.OnFailure == spec.FailureContinue || j.Update.MaxFailureRatio > 0
			if j.Container.Joins != s.Service || !r.Project.InStep(j) || lenient || slices.Contains(p.Stopped, j.Name) {
				continue
			}
			for _, b := range s.Backends {
				n := w.state.replicas[b.Replica].Number
				if beside := spec.ReplicaID(s.Project, j.Name, r.Generation(j.Name), n); of(b.Replica) == gen && n <= j.Replicas && !w.serves(beside) && !w.ended(beside) {
					w.violate("rules send connections to %s before %s serves beside it", b.Replica, beside)
				}
			}
		}
	}
}

// backends are those that the kernel has for the route.
func (w *World) backends(of spec.ServiceRoute) []spec.Backend {
	i := slices.IndexFunc(w.kernel.Services, func(s spec.ServiceRoute) bool {
		return s.Project == of.Project && s.Service == of.Service && s.Network == of.Network
	})
	if i < 0 {
		return nil
	}
	return w.kernel.Services[i].Backends
}

// ended reports whether the replica is a job that has ended well.
func (w *World) ended(id string) bool {
	c := w.containers[id]
	return c != nil && c.phase == spec.PhaseExited && c.code == 0
}
