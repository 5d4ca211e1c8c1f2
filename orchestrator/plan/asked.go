package plan

import (
	"slices"

	"dunnage/spec"
)

// relieve picks the replica that is restarted because somebody asked for that one
// alone: where one more can run, when that is ready, and one after the other.
func (v *view) relieve() {
	if v.leaves != "" || v.stopped || v.project.Rolling() {
		return
	}
	own := v.between(0, v.Replicas)
	asked := func(r *Replica) bool { return r.Record.Asked && r.Alive() }
	about := func(r *Replica) bool {
		return r.Record.Asked && (!r.Alive() || r.Record.Requested) || // it has its stop signal
			!r.Record.Asked && r.Phase == spec.PhaseRunning && !r.Usable() && !sick(r) && r.StoppingSince.IsZero() // it is about to be back
	}
	i := slices.IndexFunc(own, about)
	if i < 0 && !v.awaitsSpare() {
		i = slices.IndexFunc(own, asked)
	}
	if i >= 0 && asked(own[i]) {
		v.leaves = own[i].ID
	}
}

// howToLeave is how v.leaves stops.
func (v *view) howToLeave(r *Replica) Stop {
	if layer := max(r.Written, r.Record.Outgrown); v.outgrown(r) || r.Record.Outgrown > 0 {
		return Stop{Unwell: true, Outgrown: layer}
	}
	return Stop{} // as if stopped on request: it is wanted, so it starts again
}
