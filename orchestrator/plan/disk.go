package plan

import (
	"fmt"
	"slices"
	"time"

	"dunnage/spec"
)

// freshRun is how long a run with an empty writable layer must last for its end
// at the limit not to count as a failure in a row: who fills the layer sooner is
// started again later each time, as one that crashes is.
const freshRun = 10 * time.Minute

// outgrown reports whether the replica's writable layer is over what the service
// says.
func (v *view) outgrown(r *Replica) bool {
	return v.Disk > 0 && r.Written > v.Disk && r.Exists && r.Recorded && r.Phase == spec.PhaseRunning
}

// exchange picks the replica that gives its place to one with an empty layer: of
// those that have outgrown theirs, the stand-in among them, the one that has run
// the longest, so that each has its turn, and none while another is about it. Where
// one more can run and has space, that is ready before. An update replaces them all anyway.
func (v *view) exchange() {
	if v.Disk == 0 || v.stopped || v.Restart.Mode == spec.RestartNo || v.project.Rolling() {
		return
	}
	own, all := v.between(0, v.Replicas), v.between(0, v.Replicas+1)
	about := func(r *Replica) bool {
		return r.Record.Outgrown > 0 || r.Record.Exit != nil && r.Record.Exit.Disk > 0 && !r.Usable() && r.Health != spec.HealthUnhealthy
	}
	if len(own) < v.Replicas {
		return
	}
	if i := slices.IndexFunc(all, about); i >= 0 {
		if all[i].Record.Outgrown > 0 && all[i].Alive() { // it has its stop signal
			v.leaves = all[i].ID
		}
		return
	}
	over := slices.DeleteFunc(slices.Clone(all), func(r *Replica) bool { return !v.outgrown(r) })
	slices.SortStableFunc(over, func(a, b *Replica) int { return a.StartedAt.Compare(b.StartedAt) })
	for _, r := range over {
		switch standsIn := r.Number > v.Replicas; {
		case standsIn && v.relieved():
			v.leaves = r.ID
			return
		case standsIn && len(usable(own)) < len(own):
			continue // it is needed for one that is down for another reason
		case standsIn: // it is about to be relieved, and none goes before
			return
		case v.awaitsSpare():
			return
		default:
			v.leaves = r.ID
			return
		}
	}
}

// relieved reports whether the service can do without the stand-in for a while:
// the others serve, and have for long enough not to be crashing at once. One that
// is sick, or fails again and again, isn't waited for while another serves.
func (v *view) relieved() bool {
	steady := false
	for _, r := range v.between(0, v.Replicas) {
		switch {
		case r.Usable() && (r.Record.Restarts == 0 || v.now.Sub(r.StartedAt) >= longRun):
			steady = true
		case !sick(r) && r.Record.Failures < triesWithRollback:
			return false
		}
	}
	return steady
}

// outgrew says what is done about the replica's layer; empty = it needs nothing.
func (v *view) outgrew(r *Replica) string {
	if !v.outgrown(r) {
		return ""
	}
	text := fmt.Sprintf("its writable layer has %s, and x-dunnage.disk is %s", spec.Bytes(r.Written), spec.Bytes(v.Disk))
	switch {
	case v.Restart.Mode == spec.RestartNo:
		return text + ": it goes on, since its restart is no"
	case v.project.Rolling():
		return text + ": it is replaced when the release has come in"
	case v.leaves == r.ID:
		return text + ": it is being replaced"
	case r.Number > v.Replicas:
		return text + ": it goes, or is replaced, when those that it stands in for are back"
	default:
		return text + ": it is replaced when another is ready in its stead"
	}
}

// emptied says for a day that the replica runs in the place of one whose layer was
// too large.
func (v *view) emptied(r *Replica) string {
	e := r.Record.Exit
	if e == nil || e.Disk == 0 || v.now.Sub(e.At) > 24*time.Hour {
		return ""
	}
	return fmt.Sprintf("replaced at %s UTC: %s", e.At.UTC().Format("2006-01-02 15:04:05"), ExitText(r.Record))
}

// renew throws the layer away once no process has it. The next look makes the
// container anew.
func (b *builder) renew(r *Replica) {
	if t := retryAt(r); b.now.Before(t) {
		b.wakeAt(t)
		return
	}
	b.do(Renew{r.ReplicaKey})
}
