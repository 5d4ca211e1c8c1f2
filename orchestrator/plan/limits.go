package plan

import "dunnage/spec"

// Limit changes the limits of a replica, whose process goes on.
type Limit struct {
	Key    spec.ReplicaKey
	Limits spec.Limits
}

// Replica names the replica.
func (a Limit) Replica() spec.ReplicaKey { return a.Key }

// limit brings the limits in force to those that are wanted. Replicas of
// another generation keep theirs.
func (b *builder) limit(v *view, r *Replica) {
	if !v.limitPending(r) || r.Phase == spec.PhaseLost {
		return
	}
	if t := retryAt(r); b.now.Before(t) {
		b.wakeAt(t)
		return
	}
	b.do(Limit{r.ReplicaKey, v.Limits})
}

func (v *view) limitPending(r *Replica) bool { return r.Exists && r.Limits != v.limits }

// limited reports whether the limits of the release hold, but for replicas
// that count as failed.
func (v *view) limited() bool {
	for _, r := range v.current {
		if v.limitPending(r) && v.trouble(r) == "" {
			return false
		}
	}
	return true
}
