package plan

import (
	"fmt"
	"math"
	"slices"
	"time"

	"dunnage/spec"
)

// defaultDeadline is Kubernetes' progressDeadlineSeconds.
const defaultDeadline = 10 * time.Minute

// update is how far the wanted generation of a service has taken over from the
// one before. It is worked out anew from what is seen at each look: a batch is
// through when the kernel names a replica of it.
type update struct {
	policy spec.UpdatePolicy
	old    []*Replica // of another generation, that carry the service or would if they hadn't just failed

	open   int    // wanted replicas up to this number may run
	in     int    // wanted replicas up to this number take connections
	out    int    // old replicas up to this number may go
	canary bool   // those that are in are on trial beside all the old ones
	why    string // what the update waits for, "" = the open batch
	beside string // which of those that share the network the open batch waits for
	wake   time.Time
}

// through reports whether nothing of the old generation is needed any more.
func (u update) through() bool { return u.out == math.MaxInt }

// policy is the one that holds for the way that the project goes.
func (v *view) policy() spec.UpdatePolicy {
	p := v.Update
	if v.owner != nil {
		in := v.owner.policy()
		p.Order, p.Parallelism, p.Delay = in.Order, in.Parallelism, in.Delay
		return p
	}
	if v.project.Record.Backward && v.Rollback != nil {
		p = *v.Rollback
	}
	if p.Order == spec.StopFirst && v.Container.Writable() {
		p.Parallelism = 0 // a batch would write beside the rest of the old ones
	}
	return p
}

// advance works out v.update; v.waiting must be known.
func (v *view) advance(now time.Time) {
	u := update{policy: v.policy(), open: v.Replicas, in: v.Replicas, out: math.MaxInt}
	for _, r := range v.others {
		if r.Generation != v.gen && (r.Named || r.Recorded && r.Generation == v.goodGen) {
			u.old = append(u.old, r)
		}
	}
	if held := v.project.Record.Paused != ""; len(u.old) > 0 && (!v.stopped || held) && v.Replicas > 0 {
		u.open, u.in, u.out = 0, 0, 0
		v.takeOver(&u, now)
	}
	v.update = u
}

// takeOver goes through the batches up to the one that isn't through.
func (v *view) takeOver(u *update, now time.Time) {
	for i, to := range v.batches(u.policy) {
		batch := v.between(u.open, to)
		if v.project.Record.Paused != "" && !slices.ContainsFunc(batch, v.underWay) {
			u.why = "paused: " + v.project.Record.Paused
			return
		}
		u.open = to
		if u.policy.Order == spec.StopFirst {
			if !v.begun(to) {
				return
			}
			u.in, u.out = to, to
			if to == v.Replicas {
				u.out = math.MaxInt // there may have been more of the old ones
			}
		}
		first := i == 0 && v.trial()
		if !v.carries(batch, now, u, first) {
			return
		}
		u.in = to
		since := v.since(batch)
		if first {
			u.canary = true
			if u.why, u.wake = v.trialWaits(since, now), since.Add(v.Canary.For.Std()); u.why != "" {
				return
			}
			u.canary = false
		}
		u.out = max(u.out, to)
		if end := since.Add(u.policy.Delay.Std()); v.project.Record.Paused == "" && to < v.Replicas && now.Before(end) {
			u.why, u.wake = "the next batch begins at "+end.UTC().Format(time.TimeOnly)+" UTC", end
			return
		}
	}
	u.out, u.wake = math.MaxInt, time.Time{}
}

// underWay reports whether the update has come to the wanted replica: it runs, or
// ended by itself and is to run again. What is left of it from an earlier rollout
// isn't, nor is one that was stopped on request before it took connections.
func (v *view) underWay(r *Replica) bool {
	if r.Number <= v.project.Record.Reached[v.Name] || r.Alive() && r.StoppingSince.IsZero() {
		return true
	}
	stopped := r.Record.Requested && !r.Record.Unwell
	return !stopped && (r.Record.Running || r.Record.Exit != nil || r.Phase == spec.PhaseExited)
}

// rests reports whether the old replica of a service that was stopped on request is
// one that a start brings back, since the rollout is paused.
func (v *view) rests(r *Replica) bool {
	same := func(o *Replica) bool { return o.ID == r.ID }
	switch {
	case !v.stopped:
		return false
	case v.owner != nil:
		i := slices.IndexFunc(v.owner.others, func(o *Replica) bool { return o.ID == r.Record.Joins })
		return i >= 0 && v.owner.rests(v.owner.others[i])
	}
	return !v.update.gone(r) && slices.ContainsFunc(v.update.old, same)
}

// meanwhile says how many of those that serve while the rollout is paused are ready,
// empty if all are.
func (v *view) meanwhile() string {
	all, ready := 0, 0
	count := func(rs []*Replica, serves func(*Replica) bool) {
		for _, r := range rs {
			if serves(r) {
				all++
				if r.Usable() || r.Done() {
					ready++
				}
			}
		}
	}
	count(v.update.old, func(r *Replica) bool { return !v.update.gone(r) })
	count(v.current, func(r *Replica) bool { return r.Number <= v.update.in })
	if ready == all {
		return ""
	}
	return fmt.Sprintf("; of those that serve meanwhile %d of %d ready", ready, all)
}

// batches lists the last number of each batch.
func (v *view) batches(p spec.UpdatePolicy) []int {
	size := p.Parallelism
	if size <= 0 || v.flips() {
		size = v.Replicas
	}
	var ends []int
	at := 0
	if v.trial() {
		at = min(v.Canary.Replicas, v.Replicas)
		ends = append(ends, at)
	}
	for at < v.Replicas {
		at = min(at+size, v.Replicas)
		ends = append(ends, at)
	}
	return ends
}

// between lists the wanted replicas that exist with numbers above from, up to to.
func (v *view) between(from, to int) []*Replica {
	var out []*Replica
	for _, r := range v.current {
		if r.Number > from && r.Number <= to {
			out = append(out, r)
		}
	}
	return out
}

// trial reports whether the update begins with a canary.
func (v *view) trial() bool {
	return v.Canary != nil && v.owner == nil && v.Update.Order == spec.StartFirst && v.project.Rolling() && !v.project.Record.Backward
}

// trialWaits says what the canary waits for, "" = its trial is over.
func (v *view) trialWaits(since, now time.Time) string {
	rec := v.project.Record
	end := since.Add(v.Canary.For.Std())
	switch {
	case rec.Paused != "":
		return "paused: " + rec.Paused
	case rec.Promoted == v.project.Release.Number:
		return ""
	case since.IsZero():
		return "canary: about to take connections"
	case v.Canary.For == 0:
		return fmt.Sprintf("canary: `dunnage promote -p %s` goes on, `dunnage rollback -p %s` goes back", rec.Name, rec.Name)
	case now.Before(end):
		return fmt.Sprintf("canary until %s UTC; `dunnage promote -p %s` goes on at once", end.UTC().Format(time.TimeOnly), rec.Name)
	default:
		return ""
	}
}

// since is when the last of the replicas was first seen to take connections,
// which of a service without networks means to run well; zero while none does.
func (v *view) since(rs []*Replica) time.Time {
	var last time.Time
	for _, r := range rs {
		at := r.RoutedSince
		if len(v.Container.Networks) == 0 && r.Usable() {
			at = r.StartedAt
		}
		if at.After(last) {
			last = at
		}
	}
	return last
}

// carries reports whether the batch may take, or has taken, connections: it is
// whole, and all of it but the failures that are tolerated has proven itself.
func (v *view) carries(batch []*Replica, now time.Time, u *update, trial bool) bool {
	missing := slices.ContainsFunc(v.missing, func(k spec.ReplicaKey) bool { return k.Number > u.in && k.Number <= u.open })
	carried := func(r *Replica) bool { return r.Named || r.Number <= v.project.Record.Reached[v.Name] }
	if slices.ContainsFunc(batch, carried) && !missing && !slices.ContainsFunc(batch, v.coming) {
		return true
	}
	if v.project.Record.Paused != "" {
		u.why = "paused: " + v.project.Record.Paused
		return false
	}
	if missing {
		return false
	}
	if slices.ContainsFunc(append(slices.Clone(v.joiners), v), func(v *view) bool { return len(v.failures()) > v.tolerated() }) {
		return false
	}
	proven := 0
	for _, r := range batch {
		end, beside := v.togetherProvenAt(r)
		switch {
		case end.IsZero():
			if v.togetherTrouble(r) == "" {
				u.beside = beside
				return false
			}
		case now.Before(end):
			u.why, u.wake = "is watched until "+end.UTC().Format(time.TimeOnly)+" UTC", end
			return false
		default:
			proven++
		}
	}
	// A batch that failed whole is left behind too, as long as it isn't all of
	// them, nor the canary.
	return proven > 0 || !trial && (u.open < v.Replicas || len(usable(v.current)) > 0)
}

// onItsWay reports whether the replica hasn't come up for the first time yet. On
// the way back from half an update, some of a batch carry and others are on
// their way; after a switch, one that is down has come up before.
func onItsWay(r *Replica) bool {
	return !r.Usable() && !r.Done() && r.Record.Exit == nil && r.Health != spec.HealthUnhealthy
}

// provenAt is when the replica has run well for long enough; zero = it doesn't.
func (v *view) provenAt(r *Replica) time.Time {
	switch {
	case r.Done():
		return r.Record.Exit.At
	case r.Usable():
		return r.StartedAt.Add(v.policy().Monitor.Std())
	default:
		return time.Time{}
	}
}

// mayRun reports whether the update has come to the wanted replica. A spare
// isn't part of it: without one, replicas that fell sick before the last old one
// was gone would never be healed, and never take over.
func (v *view) mayRun(k spec.ReplicaKey) bool {
	return k.Number <= v.update.open || v.update.through() || k.Number > v.Replicas
}

// gone reports whether the old replica isn't needed any more.
func (u update) gone(r *Replica) bool { return r.Number <= u.out }
