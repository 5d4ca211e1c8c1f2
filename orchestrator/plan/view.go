package plan

import (
	"fmt"
	"slices"

	"dunnage/spec"
)

// view is one service with all that is known of it.
type view struct {
	project *Project
	spec.Service
	image   spec.PinnedImage
	gen     string
	goodGen string    // generation of the release to go back to, "" = none
	stopped bool      // on request
	current []Replica // of the wanted generation and number; IDs of missing ones are in missing
	missing []spec.ReplicaKey
	others  []Replica // of the service, but neither wanted
	waiting string    // which dependency is not met, "" = all are
}

// views lists the services of a project in the manifest's order.
func views(p *Project, o Observed) []*view {
	var vs []*view
	for _, s := range p.Release.Project.Services {
		vs = append(vs, newView(p, s, o))
	}
	for _, v := range vs {
		v.waiting = waitsFor(v, vs)
	}
	return vs
}

func newView(p *Project, s spec.Service, o Observed) *view {
	image := p.Release.Images[s.Name]
	v := &view{
		project: p, Service: s, image: image,
		gen:     spec.Generation(s.Container, image.Digest),
		stopped: slices.Contains(p.Record.Stopped, s.Name),
	}
	if p.Good != nil {
		if g, ok := p.Good.Project.Service(s.Name); ok {
			v.goodGen = spec.Generation(g.Container, p.Good.Images[s.Name].Digest)
		}
	}
	wanted := map[string]bool{}
	for n := 1; n <= s.Replicas; n++ {
		key := spec.ReplicaKey{
			ID: spec.ReplicaID(p.Record.Name, s.Name, v.gen, n), Project: p.Record.Name,
			Service: s.Name, Generation: v.gen, Number: n,
		}
		wanted[key.ID] = true
		if r, ok := o.find(key.ID); ok {
			r.ReplicaKey = key // a leftover of the network knows no more than its ID
			v.current = append(v.current, r)
		} else {
			v.missing = append(v.missing, key)
		}
	}
	for _, r := range o.Replicas {
		if r.Project == p.Record.Name && r.Service == s.Name && !wanted[r.ID] {
			v.others = append(v.others, r)
		}
	}
	return v
}

// ready counts the wanted replicas that are usable, or jobs that are done.
func (v *view) ready() int {
	n := 0
	for _, r := range v.current {
		if r.Usable() || r.Done() {
			n++
		}
	}
	return n
}

// enough reports whether the wanted generation can carry the service alone.
func (v *view) enough() bool { return v.stopped || v.ready() >= v.Replicas }

// backends are the replicas that connections should go to.
//
// During a start-first update these are the ones that have been carrying the
// service until enough of the new generation is usable, so a release that never
// gets ready changes nothing. A stop-first update has no old ones: they
// must be gone before the new ones start. When all else is gone, any usable
// replica beats none.
func (v *view) backends() []Replica {
	if v.stopped || v.Replicas == 0 {
		return nil
	}
	fresh := usable(v.current)
	if v.enough() || (v.Update.Order == spec.StopFirst && v.begun()) {
		return fresh
	}
	var carrying []Replica
	for _, r := range usable(append(slices.Clone(v.current), v.others...)) {
		if r.Named {
			carrying = append(carrying, r)
		}
	}
	old := usable(v.others)
	switch {
	case len(carrying) > 0 && anyOf(carrying, v.others):
		// Until the switch, only the ones that carried it; a new one that a
		// rule names already belongs to a switch that has happened.
		return carrying
	case len(fresh) > 0:
		return fresh
	default:
		return old
	}
}

// begun reports whether an update may touch the old replicas of a stop-first
// service: what it depends on is there and the new containers are made, so that
// only the start stands between stop and ready.
func (v *view) begun() bool {
	if v.waiting != "" || len(v.missing) > 0 {
		return false
	}
	for _, r := range v.current {
		if !r.Exists || !r.Attached || !r.Recorded {
			return false
		}
	}
	return true
}

// kept reports whether an old replica still carries the service, or would if
// it hadn't just failed.
func (v *view) kept(r Replica, backends []Replica) bool {
	if v.stopped || v.Replicas == 0 {
		return false
	}
	if slices.ContainsFunc(backends, func(b Replica) bool { return b.ID == r.ID }) {
		return true
	}
	if v.enough() || r.Generation != v.goodGen || !r.Recorded {
		return false
	}
	return v.Update.Order == spec.StartFirst || !v.begun()
}

// mustWait reports whether starting r could make two generations write to the
// same volumes: a process of another generation of a stop-first service lives.
func (v *view) mustWait(r Replica) bool {
	other := func(o Replica) bool { return o.Alive() && o.Generation != r.Generation }
	return v.Update.Order == spec.StopFirst && (slices.ContainsFunc(v.current, other) || slices.ContainsFunc(v.others, other))
}

func usable(rs []Replica) []Replica {
	var out []Replica
	for _, r := range rs {
		if r.Usable() {
			out = append(out, r)
		}
	}
	return out
}

func anyOf(rs, set []Replica) bool {
	return slices.ContainsFunc(rs, func(r Replica) bool {
		return slices.ContainsFunc(set, func(s Replica) bool { return s.ID == r.ID })
	})
}

// waitsFor returns the first dependency of v that isn't met, for people.
func waitsFor(v *view, all []*view) string {
	for _, d := range v.DependsOn {
		i := slices.IndexFunc(all, func(o *view) bool { return o.Name == d.Service })
		if i < 0 {
			continue // optional and not in the release: the manifest saw to the others
		}
		if !met(all[i], d.Condition) {
			return fmt.Sprintf("waits for %s to be %s", d.Service, conditionWord[d.Condition])
		}
	}
	return ""
}

var conditionWord = map[spec.Condition]string{
	spec.DependStarted:   "started",
	spec.DependHealthy:   "healthy",
	spec.DependCompleted: "completed",
}

// met reports whether the service has reached the condition. One that was
// asked to have no process, by its scale or by a stop, can't be waited for:
// whoever asked for that knows.
func met(v *view, c spec.Condition) bool {
	if v.stopped {
		return true
	}
	n := 0
	for _, r := range v.current {
		switch {
		case c == spec.DependStarted && (r.Phase == spec.PhaseRunning || r.Done()),
			c == spec.DependHealthy && r.Usable(),
			c == spec.DependCompleted && r.Done():
			n++
		}
	}
	return n == v.Replicas
}
