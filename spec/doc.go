// Package spec is the vocabulary that the parts of dunnage share: what a
// manifest declares (Project, Service), what a deploy records (Release), what
// runs (Instance, Replica), where packets go (Routing) and what is told to
// people (Status, Event, Operation).
//
// It holds data and the few pure functions that define identity (Generation,
// ReplicaID). It imports none of dunnage's other packages, does no I/O, and
// every slice in it has a defined order, so that equal values encode to equal
// JSON.
package spec
