package plan

import (
	"slices"

	"dunnage/spec"
)

// sick reports whether the replica was well enough to be kept and isn't any
// more, while its process runs.
func sick(r *Replica) bool {
	return r.Exists && r.Phase == spec.PhaseRunning && r.Health == spec.HealthUnhealthy && r.StoppingSince.IsZero()
}

// needsSpare reports whether a replica more than declared should run: while one
// that is sick, has outgrown its disk or was asked to be restarted alone waits for
// its replacement, and until it is back. An update has its
// own replacements. A release that makes a service smaller finds the spare
// there: the first of those that it takes away stays as long as it is needed.
func (v *view) needsSpare() bool {
	if !v.sparing() || v.stopped {
		return false
	}
	spare := slices.ContainsFunc(v.others, func(r *Replica) bool {
		return r.Generation == v.gen && r.Number == v.Replicas+1 && r.Recorded
	})
	if v.project.Rolling() && (v.gen != v.goodGen || !spare) {
		return false
	}
	if spare && len(v.missing) > 0 { // one is being made anew
		return true
	}
	replaces := v.Unhealthy == spec.UnhealthyReplace
	return slices.ContainsFunc(v.current, func(r *Replica) bool {
		kept := sick(r) && !replaces && v.Disk == 0 // as it is, so it doesn't come back
		return replaces && sick(r) || v.outgrown(r) || r.Record.Asked && r.Alive() || spare && !v.back(r) && !kept
	})
}

// back reports whether the replica doesn't need the spare any more. One that
// keeps crashing is usable now and then, and isn't back for that.
func (v *view) back(r *Replica) bool {
	if r.Usable() && r.Record.Restarts > 0 {
		return v.now.Sub(r.StartedAt) >= longEnough(r.Record)
	}
	return r.Usable() || r.Done()
}

// sparing reports whether one more replica can run beside the declared ones.
// It can't where they have ports in common.
func (v *view) sparing() bool {
	alone := v.Container.Network == spec.NetworkOwn || v.Container.Network == spec.NetworkNone
	return alone && v.Update.Order == spec.StartFirst && v.Container.ContainerName == "" && v.Restart.Mode != spec.RestartNo
}

// awaitsSpare reports whether a replica that is to be replaced stays until one more
// is ready. For one that the disk has no space for it would stay as long as the
// disk is full, with the layer that may be what fills it.
func (v *view) awaitsSpare() bool {
	spare := v.between(v.Replicas, v.Replicas+1)
	return v.sparing() && (len(spare) == 0 || !spare[0].Usable() && !spare[0].NoSpace)
}

// heal restarts a sick replica: at once where nothing can run in its stead,
// else when the spare does.
func (b *builder) heal(v *view, r *Replica) {
	if !sick(r) || v.Unhealthy == spec.UnhealthyKeep || v.Restart.Mode == spec.RestartNo || v.project.Rolling() {
		return
	}
	switch {
	case r.Number > v.Replicas: // the spare itself: what makes both sick isn't cured by a restart
	case v.Unhealthy == spec.UnhealthyReplace && v.awaitsSpare():
	default:
		b.stop(r, Stop{Unwell: true})
	}
}
