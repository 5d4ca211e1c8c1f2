package plan

import (
	"time"

	"dunnage/spec"
)

// Action is one of the structs below. Actions of one plan don't depend on each
// other and may run side by side.
type Action interface {
	// Replica is the replica that the action is about, zero for Apply.
	Replica() spec.ReplicaKey
}

// Create completes a replica up to, but not with, its process: record with
// addresses, network, container.
type Create struct {
	Key     spec.ReplicaKey
	Release int
	Service spec.Service
	Image   spec.PinnedImage
	Joins   string // replica whose network it shares, if it has none of its own
}

// Start gives a created or exited replica a process.
type Start struct {
	Key     spec.ReplicaKey
	Restart bool // it has run before
}

// RecordExit stores the end of a run before anything deletes its trace.
type RecordExit struct {
	Key  spec.ReplicaKey
	Exit spec.Exit
	Run  time.Duration // how long it ran
}

// RecordAccept stores that a replica's accept probe has passed.
type RecordAccept struct{ Key spec.ReplicaKey }

// Apply swaps the kernel's rules.
type Apply struct{ Routing spec.Routing }

// WriteNames rewrites a running replica's hosts file.
type WriteNames struct {
	Key      spec.ReplicaKey
	Endpoint spec.Endpoint
}

// Drain notes that a replica's old connections have begun to run out of time.
type Drain struct {
	Key   spec.ReplicaKey
	Conns int
	Until time.Time
}

// Stop sends the stop signal.
type Stop struct {
	Key    spec.ReplicaKey
	Unwell bool // for its health: it is to start again
	// Outgrown are the bytes of its writable layer, if it is to start again
	// with an empty one.
	Outgrown int64
}

// Kill sends SIGKILL to a replica that outlived its grace period.
type Kill struct{ Key spec.ReplicaKey }

// Renew removes the container of a replica that has outgrown its writable layer.
// Its record, addresses and log stay.
type Renew struct{ Key spec.ReplicaKey }

// Remove deletes all that is left of a replica.
type Remove struct{ Key spec.ReplicaKey }

// Replica and its like below name the replica.
func (a Create) Replica() spec.ReplicaKey { return a.Key }

func (a Start) Replica() spec.ReplicaKey        { return a.Key }
func (a RecordExit) Replica() spec.ReplicaKey   { return a.Key }
func (a RecordAccept) Replica() spec.ReplicaKey { return a.Key }
func (a WriteNames) Replica() spec.ReplicaKey   { return a.Key }
func (a Drain) Replica() spec.ReplicaKey        { return a.Key }
func (a Stop) Replica() spec.ReplicaKey         { return a.Key }
func (a Kill) Replica() spec.ReplicaKey         { return a.Key }
func (a Renew) Replica() spec.ReplicaKey        { return a.Key }
func (a Remove) Replica() spec.ReplicaKey       { return a.Key }

// Replica is zero: rules belong to no replica alone.
func (a Apply) Replica() spec.ReplicaKey { return spec.ReplicaKey{} }

// Plan is what to do next.
type Plan struct {
	Actions []Action
	Routing spec.Routing       // where connections should go; also in an Apply if the kernel differs
	Wake    time.Time          // when to look again at the latest; zero = only on an event
	Visits  []spec.VisitTarget // where to see whether connections arrive
	Rollout []Rollout          // of the projects whose desired release has yet to prove itself
	Status  []spec.ProjectStatus
	Absent  map[string]Absence // services without a ready replica, now or lately, by "project/name"; for the next plan
}

// Rollout says how far a project's desired release is.
type Rollout struct {
	Project   string
	Converged bool
	Failed    string             // why it can't converge, one line; empty = it still may
	Culprit   spec.ReplicaKey    // the replica that it is about, if it is about one
	Action    spec.FailureAction // what to do about that
	Unreached string             // the service whose published port clients don't get through to, if that is why
}
