package plan

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"dunnage/spec"
)

// view is one service with all that is known of it.
type view struct {
	now     time.Time
	project *Project
	spec.Service
	gen        string
	stopped    bool       // on request
	current    []*Replica // of the wanted generation and number; IDs of missing ones are in missing
	missing    []spec.ReplicaKey
	others     []*Replica // of the service, but neither wanted
	waiting    string     // which dependency is not met, "" = all are
	awaitsDead *Replica   // left dead, so that the dependency won't be met by itself
	visits     []Visited  // of all the project's targets
	update     update

	reach []spec.Reach // what was found at the addresses that clients use

	owner   *view   // whose network it joins, if they go in step
	joiners []*view // those that join its network and go in step with it
	lodgers []*view // those that join its network and are replaced in it, stop-first

	leaves string // replica that is being exchanged for one with an empty layer, or restarted alone

	goodGen      string // generation of the release to go back to, "" = none
	goodReplicas int    // and how many it wants
	goodLimits   string // and the fingerprint of its limits
	limits       string // fingerprint of the wanted ones
	secrets      string // fingerprint of the versions of its secrets
	goodSecrets  string
}

// views lists the services of a project in the manifest's order.
func views(p *Project, o Observed) []*view {
	var vs []*view
	for _, s := range p.Release.Project.Services {
		vs = append(vs, newView(p, s, o))
	}
	link(p, vs)
	for again := true; again; { // who waits for one that waits in vain does so too
		again = false
		for _, v := range vs {
			before := v.awaitsDead
			if v.waiting = doubt(o.Doubtful, p.Release.Images[v.Name].Digest); v.waiting == "" {
				v.waiting, v.awaitsDead = waitsFor(v, vs)
			}
			again = again || v.awaitsDead != before
		}
	}
	for _, v := range vs {
		if v.owner == nil {
			v.advance(o.Now)
		}
	}
	for _, v := range vs {
		if v.owner != nil {
			v.follow()
		}
	}
	return vs
}

func newView(p *Project, s spec.Service, o Observed) *view {
	v := &view{
		now: o.Now, project: p, Service: s,
		gen:     p.Release.Generation(s.Name),
		stopped: slices.Contains(p.Record.Stopped, s.Name),
		limits:  s.Limits.Fingerprint(),
		secrets: p.Release.SecretsFingerprint(s),
		visits:  o.Visits[p.Record.Name],
	}
	switch {
	case p.Good == nil:
	case p.Good.Number == p.Release.Number: // as nearly always, and hashes take time
		v.goodGen, v.goodReplicas, v.goodLimits, v.goodSecrets = v.gen, s.Replicas, v.limits, v.secrets
	default:
		if g, ok := p.Good.Project.Service(s.Name); ok {
			v.goodGen, v.goodReplicas = p.Good.Generation(s.Name), g.Replicas
			v.goodLimits, v.goodSecrets = g.Limits.Fingerprint(), p.Good.SecretsFingerprint(g)
		}
	}
	var own []int
	for i := range o.Replicas { // all of them for each service: copies would take longer than the rest
		if r := &o.Replicas[i]; r.Project == p.Record.Name && r.Service == s.Name {
			own = append(own, i)
		}
	}
	v.current, v.others = make([]*Replica, 0, s.Replicas), make([]*Replica, 0, len(own))
	for _, i := range own {
		v.others = append(v.others, &o.Replicas[i])
	}
	for n := 1; n <= s.Replicas; n++ {
		v.want(n, o)
	}
	if v.needsSpare() {
		v.want(s.Replicas+1, o)
	}
	v.exchange()
	v.relieve()
	return v
}

// want makes replica n of the generation a wanted one.
func (v *view) want(n int, o Observed) {
	key := spec.ReplicaKey{
		ID: spec.ReplicaID(v.project.Record.Name, v.Name, v.gen, n), Project: v.project.Record.Name,
		Service: v.Name, Generation: v.gen, Number: n,
	}
	r, ok := o.find(key.ID)
	if !ok {
		v.missing = append(v.missing, key)
		return
	}
	if leftover, outdated := r.ReplicaKey != key, r.Refused != "" && r.Refused != v.limits; leftover || outdated {
		own := *r
		own.ReplicaKey = key // a leftover of the network knows no more than its ID
		if outdated {
			own.Error, own.Errors, own.NoSpace = "", 0, false // nobody wants those limits any more
		}
		r = &own
	}
	v.current = append(v.current, r)
	v.others = slices.DeleteFunc(v.others, func(x *Replica) bool { return x.ID == key.ID })
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

// enough reports whether the wanted generation can carry the service alone,
// but for failures that its policy tolerates.
func (v *view) enough() bool {
	if v.stopped {
		return true
	}
	ready, failed := v.ready(), len(v.failures())
	return ready >= v.Replicas || failed > 0 && failed <= v.tolerated() && ready > 0 && ready+failed >= v.Replicas
}

// backends are the replicas that connections should go to: those that the
// update has let in and the old ones that it hasn't sent away, as far as they
// are usable. When there is none, any usable replica beats none, unless it is
// an old one that must be gone before the new ones start.
func (v *view) backends() []*Replica {
	if v.stopped || v.Replicas == 0 {
		return nil
	}
	fresh := slices.DeleteFunc(usable(v.current), func(r *Replica) bool { return r.ID == v.leaves })
	out := make([]*Replica, 0, len(fresh))
	for _, r := range fresh {
		// One that a rule names already keeps its connections: on the way back
		// from half an update, later batches carry before the first does.
		if r.Named || (r.Number <= v.update.in || v.update.through()) && !v.joinersComing(r) {
			out = append(out, r)
		}
	}
	for _, r := range usable(v.update.old) {
		if !v.update.gone(r) {
			out = append(out, r)
		}
	}
	switch {
	case len(out) > 0:
		return out
	case len(fresh) > 0:
		return fresh
	case v.policy().Order == spec.StopFirst && v.begun(v.Replicas):
		return nil
	default:
		return usable(v.cold(v.others))
	}
}

// begun reports whether an update may touch the old replicas of a stop-first
// service: what it depends on is there and the containers of the open batch are
// made, so that only the start stands between stop and ready.
func (v *view) begun(open int) bool {
	if v.waiting != "" || slices.ContainsFunc(v.missing, func(k spec.ReplicaKey) bool { return k.Number <= open }) {
		return false
	}
	return !slices.ContainsFunc(v.between(0, open), func(r *Replica) bool { return !r.Exists || !r.Attached || !r.Recorded })
}

// kept reports whether an old replica still carries the service, or would if
// it hadn't just failed.
func (v *view) kept(r *Replica, backends []*Replica) bool {
	same := func(o *Replica) bool { return o.ID == r.ID }
	if v.stopped || v.Replicas == 0 {
		return false
	}
	if v.owner != nil {
		return v.owner.keeps(r.Record.Joins)
	}
	return slices.ContainsFunc(backends, same) || !v.update.gone(r) && slices.ContainsFunc(v.update.old, same)
}

// mustWait reports whether starting r could put two generations side by side
// where one must be gone first: all of it if they would write to the same
// volumes, else its part of the batch.
func (v *view) mustWait(r *Replica) bool {
	if v.policy().Order != spec.StopFirst {
		return false
	}
	other := func(o *Replica) bool {
		return o.Alive() && o.Generation != r.Generation && (v.Container.Writable() || r.Generation == v.gen && v.update.gone(o))
	}
	return slices.ContainsFunc(v.current, other) || slices.ContainsFunc(v.others, other)
}

func usable(rs []*Replica) []*Replica {
	out := make([]*Replica, 0, len(rs))
	for i := range rs {
		if rs[i].Usable() {
			out = append(out, rs[i])
		}
	}
	return out
}

// waitsFor returns the first dependency of v that isn't met, for people; before it
// one that won't be by itself, and the replica that was left dead.
func waitsFor(v *view, all []*view) (text string, leftDead *Replica) {
	for _, d := range v.DependsOn {
		i := slices.IndexFunc(all, func(o *view) bool { return o.Name == d.Service })
		if i < 0 || all[i] == v.owner {
			continue // optional and not in the release: the manifest saw to the others; or each replica waits for its own
		}
		if met(all[i], d.Condition) {
			continue
		}
		first := fmt.Sprintf("waits for %s to be %s", d.Service, conditionWord[d.Condition])
		if dead := append(all[i].dead(), all[i].awaitsDead)[0]; dead != nil && v.stands() {
			return fmt.Sprintf("%s, which won't come by itself: %s %s", first, dead.ID, leftDeadText(dead)), dead
		}
		if d.Condition == spec.DependCompleted && all[i].Restart.EndsNever() {
			first += fmt.Sprintf(", which restart: %s never lets it be", all[i].Restart.Mode)
		}
		text = cmp.Or(text, first)
	}
	return text, nil
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
		if reached(r, c) {
			n++
		}
	}
	return n >= v.Replicas
}

func reached(r *Replica, c spec.Condition) bool {
	return c == spec.DependStarted && (r.Phase == spec.PhaseRunning || r.Done()) ||
		c == spec.DependHealthy && r.Usable() ||
		c == spec.DependCompleted && r.Done()
}
