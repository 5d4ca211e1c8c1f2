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
	if !v.deliverPending(r) || v.unproved(r) != "" { // which wakes us when it is through
		return
	}
	if t := retryAt(r); b.now.Before(t) {
		b.wakeAt(t)
		return
	}
	b.do(Deliver{r.ReplicaKey, r.Pid, v.OnSecretChange.Signal()})
}

// findProvers lists the services that the release gives new replicas: with those a new
// version proves itself, before it is swapped in under a process that runs well. On
// the way back nothing is to be proved.
func (v *view) findProvers(all []*view) {
	rec := v.project.Record
	if !v.OnSecretChange.Live() || v.secrets == v.goodSecrets || v.gen != v.goodGen || !v.project.Rolling() || rec.Backward {
		return
	}
	for _, o := range all {
		if o.gen != o.goodGen {
			v.provers = append(v.provers, o)
		}
	}
}

// unproved names the service that the replica's new secrets wait for, "" = none. One
// that isn't well has nothing to lose, and others may wait for it; one with anything
// but what the release to go back to has was given up half way.
func (v *view) unproved(r *Replica) string {
	if r.Health == spec.HealthUnhealthy || r.Delivered != v.goodSecrets {
		return ""
	}
	for _, o := range v.provers {
		if !o.update.through() || !o.enough() || v.now.Before(o.settles(v.now)) {
			return o.Name
		}
	}
	return ""
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

// undelivered says what keeps secrets from being delivered, for people.
func (v *view) undelivered() string {
	for _, r := range v.current {
		if name := v.unproved(r); name != "" && v.deliverPending(r) {
			return "its new secrets come when the new replicas of " + name + " have proved them"
		}
	}
	return "new secrets are being delivered"
}
