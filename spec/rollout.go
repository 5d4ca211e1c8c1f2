package spec

// UpdateOrder says whether the new replicas start before the old ones stop.
type UpdateOrder string

// The update orders.
const (
	StartFirst UpdateOrder = "start-first"
	StopFirst  UpdateOrder = "stop-first"
)

// UpdatePolicy says how replicas of one generation take over from those of
// another, batch by batch.
type UpdatePolicy struct {
	Order       UpdateOrder `json:"order"`                 // already resolved: stop-first with a writable volume
	Parallelism int         `json:"parallelism,omitempty"` // replicas of a batch; 0 = all
	Delay       Duration    `json:"delay,omitempty"`       // from the time a batch took connections to the start of the next

	// Monitor is how long a new replica must have run well before it takes
	// connections from an old one. One that exits in it has failed.
	Monitor Duration `json:"monitor,omitempty"`

	MaxFailureRatio float64       `json:"max_failure_ratio,omitempty"` // share of the replicas that may fail, 0 to 1
	OnFailure       FailureAction `json:"failure_action,omitempty"`
	Deadline        Duration      `json:"progress_deadline,omitempty"` // longest time without progress; 0 = 10 min
}

// FailureAction is what is done about a release that fails.
type FailureAction string

// The failure actions.
const (
	FailureRollback FailureAction = ""         // the earlier release is desired again
	FailurePause    FailureAction = "pause"    // nothing goes on until somebody says so
	FailureContinue FailureAction = "continue" // failed replicas are left behind
)

// Canary lets a few replicas of a new release take connections beside the old
// ones before it goes on.
type Canary struct {
	Replicas int      `json:"replicas"`
	For      Duration `json:"for,omitempty"`    // 0 = until it is promoted
	Weight   int      `json:"weight,omitempty"` // their share of connections in percent; 0 = as many as an equal share gives
}

// OnUnhealthy is what is done about a replica that was ready and is unhealthy.
// In any case it takes no connections.
type OnUnhealthy string

// What can be done about an unhealthy replica.
const (
	UnhealthyReplace OnUnhealthy = "" // start one more, restart it when that is ready; restart it at once where two can't run
	UnhealthyRestart OnUnhealthy = "restart"
	UnhealthyKeep    OnUnhealthy = "none"
)
