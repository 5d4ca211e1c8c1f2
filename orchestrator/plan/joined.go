package plan

import (
	"fmt"
	"slices"
	"time"

	"dunnage/spec"
)

// Replicas that share a network namespace and are replaced start-first go in
// step: replica n of who joins belongs to replica n of the owner. Both have a
// new generation when either has (spec.Release.Generation), the owner's update
// decides for both, and a new owner takes connections from an old one only
// when those beside it are ready too.

// link ties the services of a project that share a network to each other.
func link(p *Project, vs []*view) {
	for _, v := range vs {
		i := slices.IndexFunc(vs, func(o *view) bool { return o.Name == v.Container.Joins })
		switch {
		case i < 0:
		case p.Release.Project.InStep(v.Service):
			v.owner = vs[i]
			v.owner.joiners = append(v.owner.joiners, v)
		default:
			vs[i].lodgers = append(vs[i].lodgers, v)
		}
	}
}

// replaced reports whether the release has other replicas of the service than
// those that run when it comes.
func (v *view) replaced() bool { return v.gen != v.goodGen || v.halfway() }

// leavesGap reports whether the release replaces one who answers some of the
// service's connections, and not in step with it: the old one goes first.
func (v *view) leavesGap() bool { return slices.ContainsFunc(v.lodgers, (*view).replaced) }

// awaitsJoiner reports whether the rollout lets connections come to the service
// before one is there who answers some of them.
func (v *view) awaitsJoiner() bool {
	comes := func(j *view) bool { return j.replaced() && !j.enough() }
	return v.project.Rolling() &&
		(slices.ContainsFunc(v.lodgers, comes) || len(v.update.old) == 0 && slices.ContainsFunc(v.joiners, comes))
}

// follow gives a joiner the position of its owner's update.
func (v *view) follow() {
	v.update = v.owner.update
	v.update.old, v.update.canary, v.update.beside = nil, false, ""
}

// together lists the services that go in step with v, and v.
func (v *view) together() []*view {
	if v.owner != nil {
		v = v.owner
	}
	return append([]*view{v}, v.joiners...)
}

// member is the wanted replica with the number, if it exists.
func (v *view) member(n int) (*Replica, bool) {
	i := slices.IndexFunc(v.current, func(r *Replica) bool { return r.Number == n })
	if i < 0 {
		return &Replica{}, false
	}
	return v.current[i], true
}

// beside lists the joiners that want a replica beside replica n.
func (v *view) beside(n int) []*view {
	var out []*view
	for _, j := range v.joiners {
		if !j.stopped && n <= j.Replicas {
			out = append(out, j)
		}
	}
	return out
}

// waits reports whether what the wanted replica depends on isn't there yet. Of
// the owner it needs the one replica that it joins: the others may belong to
// batches that come after it.
func (v *view) waits(k spec.ReplicaKey) bool {
	if v.waiting != "" || v.owner == nil || v.owner.stopped || v.owner.Replicas == 0 {
		return v.waiting != ""
	}
	n := k.Number
	if n > v.owner.Replicas { // as in spec.Release.Joined
		n = 1
	}
	condition := spec.DependStarted
	for _, d := range v.DependsOn {
		if d.Service == v.owner.Name {
			condition = d.Condition
		}
	}
	r, ok := v.owner.member(n)
	return !ok || !reached(r, condition)
}

// togetherProvenAt is when the replica and all beside it have run well for long
// enough; zero = they don't, and who is to blame if it isn't the replica.
func (v *view) togetherProvenAt(r *Replica) (at time.Time, beside string) {
	if at = v.provenAt(r); at.IsZero() {
		return at, ""
	}
	for _, j := range v.beside(r.Number) {
		m, _ := j.member(r.Number)
		t := j.provenAt(m)
		if t.IsZero() {
			return t, fmt.Sprintf("waits for %s to be ready", j.Name)
		}
		if t.After(at) {
			at = t
		}
	}
	return at, ""
}

// togetherTrouble is the trouble of the replica or of one beside it. One that
// runs well has none, though an action on it has failed: its start may have
// come about all the same.
func (v *view) togetherTrouble(r *Replica) string {
	t := ""
	if v.provenAt(r).IsZero() {
		t = v.trouble(r)
	}
	for _, j := range v.beside(r.Number) {
		if m, ok := j.member(r.Number); ok && t == "" {
			t = j.trouble(m)
		}
	}
	return t
}

// joinersComing reports whether one beside the replica hasn't come up for the
// first time yet. One that can't come up, by itself or for what it depends on,
// isn't waited for: only an update has others to leave the connections to.
func (v *view) joinersComing(r *Replica) bool {
	return slices.ContainsFunc(v.beside(r.Number), func(j *view) bool {
		m, ok := j.member(r.Number)
		return j.waiting == "" && (!ok || onItsWay(m) && j.trouble(m) == "")
	})
}

// coming reports whether the replica may not take connections yet since it, or
// one beside it, is on its way.
func (v *view) coming(r *Replica) bool {
	return onItsWay(r) || !r.Named && v.joinersComing(r)
}

// keeps reports whether the replica with the ID is an old one that carries the
// service: who shares its network does so with it.
func (v *view) keeps(id string) bool {
	i := slices.IndexFunc(v.others, func(r *Replica) bool { return r.ID == id })
	return i >= 0 && v.kept(v.others[i], v.backends())
}

// staying notes which replicas of the service aren't on their way out, and
// whether its old ones are in the way of new ones.
func (b *builder) staying(v *view) {
	if v.owner == nil && !v.stopped && v.Replicas > 0 && v.policy().Order == spec.StopFirst {
		b.hasty[v.path()] = v
	}
	backends := v.backends()
	for _, r := range v.current {
		b.stays[r.ID] = !v.stopped
	}
	for _, r := range v.others {
		_, warm := v.warmUntil(r)
		b.stays[r.ID] = warm || v.kept(r, backends)
	}
}

// drainsWithOwner reports whether the replica shares the network of one that is
// on its way out too and still has its connections, the joiner's among them.
func (b *builder) drainsWithOwner(r *Replica) bool {
	owner, ok := b.observed.find(r.Record.Joins)
	if !ok || b.stays[owner.ID] || b.hasty[r.Project+"/"+r.Service] != nil {
		return false
	}
	runs := owner.Exists && owner.Phase == spec.PhaseRunning && owner.StoppingSince.IsZero()
	return runs && (owner.Named || !b.drained(owner))
}
