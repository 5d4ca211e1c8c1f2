package spec

import "time"

// Receipt is what an operation that changed a project did, and what clients
// noticed of it. It is kept beside the project's releases.
type Receipt struct {
	Project   string         `json:"project"`
	Number    int            `json:"number"`  // 1 and up, per project
	Release   int            `json:"release"` // that is desired at its end
	From      int            `json:"from,omitempty"`
	Operation string         `json:"operation"` // Operation.ID
	Kind      string         `json:"kind"`      // Operation.Kind, or "secrets" for new versions of secrets
	Owner     string         `json:"owner,omitempty"`
	Outcome   OperationState `json:"outcome"`
	Cause     string         `json:"cause,omitempty"`
	Started   time.Time      `json:"started"`
	Ended     time.Time      `json:"ended"`

	Visits   []VisitTally      `json:"visits,omitempty"`
	Drained  int               `json:"drained"`            // connections to old replicas that ended by themselves
	Cut      int               `json:"cut"`                // and those that drain's time was over for
	Draining int               `json:"draining,omitempty"` // still open when the receipt was written last
	Commits  int               `json:"commits"`            // of the nat tables
	Rules    RuleChange        `json:"rules"`
	Images   map[string]string `json:"images,omitempty"`  // service -> digest of its image
	Secrets  map[string]int    `json:"secrets,omitempty"` // SecretID.String() -> version
	Steps    []ReceiptStep     `json:"steps,omitempty"`   // in order of their beginning
}

// RuleChange counts the rules that differ between two states.
type RuleChange struct {
	Added   int `json:"added"`
	Removed int `json:"removed"`
}

// ReceiptStep is a part of an operation, for example "pull", "start", "ready",
// "routed", "drained".
type ReceiptStep struct {
	Name    string    `json:"name"`
	Service string    `json:"service,omitempty"`
	At      time.Time `json:"at"`
	Took    Duration  `json:"took"`
}
