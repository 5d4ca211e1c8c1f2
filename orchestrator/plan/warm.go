package plan

import (
	"time"

	"dunnage/spec"
)

// The generation before the wanted one may be kept warm: running and probed,
// out of the rules, so that a rollback to it is one swap. From the rollout's
// beginning until it has converged nobody knows until when; then the project's
// record says it. What that has goes only when the next release has converged, or
// its time is over: one that fails takes no way back away. Only what could take
// connections at once is warm: a replica that dies, or is unhealthy, goes.

// KeepsWarm reports whether replicas of the service as prev has it stay warm
// when next, in which it is another generation, has converged.
func KeepsWarm(prev, next spec.Release, service string) bool {
	before, had := prev.Project.Service(service)
	s, ok := next.Project.Service(service)
	return had && ok && s.KeepWarm > 0 && next.Project.NotWarm(s) == "" && prev.Project.NotWarm(before) == ""
}

// warmUntil reports whether the replica is kept warm, and until when; zero =
// that is decided when the release has converged.
func (v *view) warmUntil(r *Replica) (until time.Time, ok bool) {
	p := v.project
	if v.stopped || v.Replicas == 0 || v.KeepWarm == 0 && !p.Rolling() || r.Generation == v.gen || !r.warmable() {
		return time.Time{}, false
	}
	if r.Generation == v.goodGen {
		coming := p.Rolling() && !p.Record.Backward
		return time.Time{}, coming && r.Number <= v.goodReplicas && KeepsWarm(*p.Good, p.Release, v.Name)
	}
	w, kept := p.Record.WarmOf(v.Name)
	kept = kept && w.Generation == r.Generation && r.Number <= w.Replicas && v.now.Before(w.Until)
	return w.Until, kept && p.Release.Project.NotWarm(v.Service) == ""
}

// cold are those of the replicas that aren't kept warm, nor were until their time
// was over: a newer release has converged without those, so that they carry
// nothing but after a rollback.
func (v *view) cold(rs []*Replica) []*Replica {
	w, _ := v.project.Record.WarmOf(v.Name)
	var out []*Replica
	for _, r := range rs {
		if r.Generation != w.Generation || r.Generation == v.gen {
			out = append(out, r)
		}
	}
	return out
}

// warmable reports whether the replica could take connections now, as far as is
// known.
func (r *Replica) warmable() bool {
	return r.Recorded && r.Alive() && r.Phase != spec.PhasePaused && r.Attached && r.StoppingSince.IsZero() && r.Health != spec.HealthUnhealthy
}

// flips reports whether the project goes back to what is kept warm of the
// service: all of it takes over at once, for none of it has to be awaited.
func (v *view) flips() bool {
	w, ok := v.project.Record.WarmOf(v.Name)
	return ok && w.Generation == v.gen && v.project.Record.Backward && len(v.missing) == 0 && len(usable(v.current)) == len(v.current)
}

// keepWarm leaves the replica alone for as long as it is warm.
func (b *builder) keepWarm(v *view, r *Replica) bool {
	until, ok := v.warmUntil(r)
	if ok {
		b.wakeAt(until)
	}
	return ok
}
