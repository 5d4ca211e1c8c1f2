package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"dunnage/spec"
)

// spared reports whether the service neither fails nor delays the release, which
// leaves it as it was.
func (v *view) spared() bool {
	return slices.Contains(v.project.Record.Ailing, v.Name) || v.untouched() && !v.exposes()
}

// untouched reports whether the service is as the release to go back to has it.
func (v *view) untouched() bool {
	same := v.gen == v.goodGen && v.limits == v.goodLimits && v.secrets == v.goodSecrets && v.Replicas <= v.goodReplicas && !slices.Contains(v.project.Record.Held, v.Name)
	return same && (v.stopped || !v.halfway())
}

// halfway reports whether a release that never converged, between the one to go
// back to and the desired one, has begun to replace the service: a replica is
// gone or has been made since, or another generation takes connections.
func (v *view) halfway() bool {
	return slices.ContainsFunc(v.missing, func(k spec.ReplicaKey) bool { return k.Number <= v.Replicas }) ||
		slices.ContainsFunc(v.current, v.unproven) ||
		slices.ContainsFunc(v.others, func(r *Replica) bool { return r.Named && r.Generation != v.gen })
}

// unproven reports whether the replica was made for a release that hasn't
// converged.
func (v *view) unproven(r *Replica) bool {
	rec, n := v.project.Record, r.Record.Release
	return n > rec.Good && !slices.Contains(rec.Ran, n) && !slices.Contains(rec.Left, n)
}

// settled reports whether the release has done what it is to do to the service.
func (v *view) settled(now time.Time) bool {
	if !v.update.through() || !v.enough() || !v.limited() || !v.delivered() || slices.ContainsFunc(v.others, func(r *Replica) bool { return r.Named }) {
		return false
	}
	return !now.Before(v.settles(now))
}

// settles is when the last usable replica has proven itself, if that is to come.
func (v *view) settles(now time.Time) time.Time {
	var last time.Time
	for _, r := range v.current {
		if at := v.provenAt(r); now.Before(at) && at.After(last) {
			last = at
		}
	}
	return last
}

// fault is a replica that counts as failed, and why, for people.
type fault struct {
	replica   spec.ReplicaKey
	cause     string
	unreached bool // clients don't get through to a published port, for which others may be to blame
}

// failures lists the replicas of the wanted generation that count as failed.
func (v *view) failures() []fault {
	var out []fault
	for _, r := range v.current {
		if t := v.trouble(r); t != "" {
			out = append(out, fault{replica: r.ReplicaKey, cause: t})
		}
	}
	return out
}

// tolerated is how many replicas may fail without failing the release.
func (v *view) tolerated() int {
	if p := v.policy(); p.OnFailure != spec.FailureContinue {
		return int(p.MaxFailureRatio * float64(v.Replicas))
	}
	return v.Replicas
}

// failed says why the wanted generation can't become ready; its cause is empty
// while it still may.
func (v *view) failed(now time.Time) fault {
	causes := v.failures()
	for _, f := range causes {
		if v.onTrial(f.replica) || len(causes) > v.tolerated() {
			return f
		}
	}
	if f := v.missed(); f.cause != "" {
		return f
	}
	limit := cmp.Or(v.policy().Deadline.Std(), defaultDeadline)
	if v.settled(now) || v.update.why != "" || now.Before(v.progressed().Add(limit)) {
		return fault{}
	}
	out := fault{cause: fmt.Sprintf("%s: no progress for %s: %s", v.Name, limit, v.why())}
	if i := slices.IndexFunc(v.current, func(r *Replica) bool { return !r.Usable() && !r.Done() }); i >= 0 {
		out.replica = v.current[i].ReplicaKey
	}
	return out
}

// progressed is when the release last came a step further. A replica that dies
// and comes back, again and again, is none.
func (v *view) progressed() time.Time {
	last := v.project.Record.Since
	again := func(r *Replica) bool { return r.Record.Exit != nil && r.Record.Exit.At.After(v.project.Record.Since) }
	for _, o := range v.together() {
		if at := o.since(slices.DeleteFunc(slices.Clone(o.current), again)); at.After(last) {
			last = at
		}
	}
	return last
}

// diedYoung reports whether a run of the replica ended while it was watched or
// on trial, and it hasn't run well for long enough since.
func (v *view) diedYoung(r *Replica) bool {
	exit := r.Record.Exit
	if exit == nil || exit.Lost || !exit.At.After(v.project.Record.Since) || r.Record.Requested || r.Done() {
		return false
	}
	if v.policy().Monitor == 0 && !v.onTrial(r.ReplicaKey) {
		return false
	}
	proven := v.provenAt(r)
	return proven.IsZero() || v.now.Before(proven)
}

// onTrial reports whether the replica is a canary. Its failure is never
// tolerated: to find out is what it is for.
func (v *view) onTrial(k spec.ReplicaKey) bool {
	if v.owner != nil {
		return v.owner.onTrial(k)
	}
	return v.trial() && k.Number <= v.Canary.Replicas
}

// trouble says why a replica counts as failed; empty while it doesn't. One for
// which the disk has no space waits for it, since that says nothing of the release,
// and going back needs space too: only the deadline ends that.
func (v *view) trouble(r *Replica) string {
	tries := triesWithout
	if v.project.Good != nil {
		tries = triesWithRollback
	}
	switch {
	case r.Errors > 0 && !r.NoSpace && max(r.Errors, r.Record.Failures) >= tries:
		if strings.Contains(r.Error, r.ID) {
			return r.Error
		}
		return fmt.Sprintf("%s: %s", r.ID, r.Error)
	case r.Record.Failures >= tries, r.leftDead():
		return fmt.Sprintf("%s %s", r.ID, ExitText(r.Record))
	case v.diedYoung(r):
		return fmt.Sprintf("%s %s while it was watched", r.ID, ExitText(r.Record))
	case r.Health == spec.HealthUnhealthy && !r.Named:
		return fmt.Sprintf("%s is unhealthy: %s", r.ID, r.Detail)
	default:
		return ""
	}
}
