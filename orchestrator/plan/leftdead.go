package plan

import (
	"fmt"
	"slices"

	"dunnage/spec"
)

// A replica that has exited and that its restart policy doesn't start again is left
// dead. Neither it nor a service that waits for it gets ready by itself: people are
// told so, and which command starts it.

// leftDead reports whether the replica is one, and no job that ended well.
func (r *Replica) leftDead() bool {
	return r.Record.Exit != nil && !r.Record.Running && !r.Record.Requested && !r.Done() && !restarts(r.Record)
}

// leftDeadText is what people want to know of one.
func leftDeadText(r *Replica) string {
	return fmt.Sprintf("%s, and its restart policy doesn't start it again; `dunnage start -p %s %s` starts it once more", ExitText(r.Record), r.Project, r.Service)
}

// dead lists the wanted replicas that were left dead.
func (v *view) dead() []*Replica {
	return slices.DeleteFunc(v.between(0, v.Replicas), func(r *Replica) bool { return !r.leftDead() })
}

// stuck is the replica that was left dead for which the service won't get ready by
// itself: its own, or one that it waits for; nil = it may.
func (v *view) stuck() *Replica {
	if v.stopped || v.update.why != "" || v.enough() {
		return nil
	}
	if dead := v.dead(); len(dead) > v.tolerated() || len(dead) > 0 && len(dead) == v.Replicas {
		return dead[0]
	}
	if v.owner != nil && v.awaitsDead == nil && !v.owner.stopped {
		for _, r := range v.owner.dead() {
			if m, ok := v.member(r.Number); r.Number <= v.Replicas && (!ok || m.stands()) {
				return r // whose network it is to join
			}
		}
	}
	return v.awaitsDead
}

// stands reports whether some of the wanted replicas don't begin while the service
// waits.
func (v *view) stands() bool {
	return len(v.missing) > 0 || slices.ContainsFunc(v.current, (*Replica).stands)
}

// stands reports whether the replica doesn't begin while its service waits: it is to
// be made, or started for the first time since it was or since the host booted.
func (r *Replica) stands() bool {
	return !r.Alive() && (!r.Recorded || !r.Exists || r.detached() || r.Record.Exit == nil || r.Phase == spec.PhaseCreated)
}
