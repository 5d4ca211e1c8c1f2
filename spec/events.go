package spec

import (
	"slices"
	"time"
)

// EventKinds lists the kinds of events.
var EventKinds = []EventKind{
	EventPull, EventRelease, EventCreated, EventStarted, EventReady, EventLate, EventUnhealthy, EventUnreachable, EventReachable, EventExited, EventOOM, EventLimited,
	EventRouted, EventDraining, EventStopping, EventRemoved, EventConverged, EventFailed, EventDone, EventProblem, EventSecret, EventCollected, EventRepaired,
	EventAgentUp, EventAgentDown,
}

// EventRequest asks for events. The zero value asks for all that are kept.
type EventRequest struct {
	After  uint64 // only with a higher Seq
	Follow bool   // and those to come, until Until if that is set

	Since, Until time.Time   // only from Since on and before Until; zero = any
	Kinds        []EventKind // only of these; none = all
	Project      string      // only of this project; empty = all, and those of the host
	// Names are services, or replicas by any of their names: only what concerns
	// one of them. None = all.
	Names []string
}

// Wants reports whether e is asked for.
func (r EventRequest) Wants(e Event) bool {
	switch {
	case e.Seq <= r.After, e.At.Before(r.Since), !r.Until.IsZero() && !e.At.Before(r.Until):
		return false
	case len(r.Kinds) > 0 && !slices.Contains(r.Kinds, e.Kind), r.Project != "" && e.Project != r.Project:
		return false
	}
	return len(r.Names) == 0 || slices.ContainsFunc(r.Names, func(name string) bool {
		return name == e.Service && name != "" || e.Replica != "" && ReplicaIsCalled(e.Project, e.Service, e.Replica, name)
	})
}

// ReplicaIsCalled reports whether name is one of a replica's: in full, "web-1" as
// logs shows it, or "shop-web-1" as docker would.
func ReplicaIsCalled(project, service, replica, name string) bool {
	short := ShortReplica(service, replica)
	return name == replica || name == short || name == project+"-"+short
}
