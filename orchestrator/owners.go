package orchestrator

import (
	"net/netip"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// Owners says what the store knows, now.
type Owners struct{ loop *Loop }

// Owners lets others ask whose something is.
func (l *Loop) Owners() Owners { return Owners{l} }

// Replica reports whether there is a record of the replica.
func (o Owners) Replica(id string) bool {
	_, ok := o.loop.state.replica(id)
	return ok
}

// Addresses are those of replicas and services.
func (o Owners) Addresses() map[netip.Addr]bool {
	out := map[netip.Addr]bool{}
	for _, r := range o.loop.state.replicaRecords() {
		for _, a := range plan.Addresses(r) {
			out[a] = true
		}
	}
	for _, name := range o.loop.state.projectNames() {
		p, _ := o.loop.state.project(name)
		for _, a := range p.Addresses {
			out[a.Addr], out[a.Addr6] = true, true
		}
	}
	return out
}

// Held says why the agent changes nothing; empty = it does.
func (o Owners) Held() string { return o.loop.holding() }

// Reach is what the visitor found at each published port.
func (l *Loop) Reach() []spec.Reach { return l.cfg.Visits.Reach() }
