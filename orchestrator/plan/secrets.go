package plan

import "dunnage/spec"

// Deliver swaps the secret files of a running replica and sends its process a
// signal, unless that is empty.
type Deliver struct {
	Key    spec.ReplicaKey
	Pid    int // of its process
	Signal string
}

// Replica names the replica.
func (a Deliver) Replica() spec.ReplicaKey { return a.Key }

// deliver brings new versions of secrets to a replica that gets them while it
// runs. Any other has those that it was started with, for good.
func (b *builder) deliver(v *view, r *Replica) {
	if !v.deliverPending(r) {
		return
	}
	if t := retryAt(r); b.now.Before(t) {
		b.wakeAt(t)
		return
	}
	b.do(Deliver{r.ReplicaKey, r.Pid, v.OnSecretChange.Signal()})
}

// deliverPending: one that doesn't run gets them when it is started.
func (v *view) deliverPending(r *Replica) bool {
	return v.OnSecretChange.Live() && r.Exists && r.Phase == spec.PhaseRunning && r.Delivered != v.secrets
}

// delivered reports whether all have the secrets of the release, but for
// replicas that count as failed.
func (v *view) delivered() bool {
	for _, r := range v.current {
		if v.deliverPending(r) && v.trouble(r) == "" {
			return false
		}
	}
	return true
}
