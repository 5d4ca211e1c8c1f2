package spec

import "time"

// KeptReceipts is how many receipts of a project stay.
const KeptReceipts = 20

// Receipt says what a rollout did, and what clients noticed of it. It is begun
// with the commit that makes the release the desired one, so that there is one
// whatever happens after, and written again when the rollout ends and when the
// last replica that it replaced is gone.
type Receipt struct {
	Project     string         `json:"project"`
	Number      int            `json:"number"`           // 1 and up, per project
	Release     int            `json:"release"`          // that it was to bring in
	From        int            `json:"from,omitempty"`   // the one that was desired before; 0 = there was none
	Operation   string         `json:"operation"`        // Operation.ID
	Kind        string         `json:"kind"`             // deploy, rollback, scale, restart, or secret for new versions of secrets
	Reason      string         `json:"reason,omitempty"` // of the release: "scale web=3"
	Owner       string         `json:"owner,omitempty"`  // user who asked for it, of several secrets perhaps more than one, with commas; empty = the agent itself, or not known
	Outcome     OperationState `json:"outcome"`          // rolling until its end
	Cause       string         `json:"cause,omitempty"`  // one line, when failed or rolled back
	Started     time.Time      `json:"started"`
	Ended       time.Time      `json:"ended,omitzero"`
	Settled     time.Time      `json:"settled,omitzero"`     // when the last replica that it replaced was gone; until then Drained, Cut and Draining change
	Interrupted time.Time      `json:"interrupted,omitzero"` // when the agent began anew in the middle of it: what it counts is since then

	Visits   []VisitTally      `json:"visits,omitempty"`   // from Started to Ended
	Drained  int               `json:"drained"`            // connections to replaced replicas that ended by themselves
	Cut      int               `json:"cut"`                // and those that ended with the replica: drain's time was over, or it died
	Draining int               `json:"draining,omitempty"` // and those that were open when the receipt was written last
	Commits  int               `json:"commits"`            // of nat tables, one for each address family, that changed where the project's connections go
	Rules    RuleChange        `json:"rules"`              // with these commits, all tables and both families together
	Images   map[string]string `json:"images,omitempty"`   // service -> digest of its image
	Secrets  map[string]int    `json:"secrets,omitempty"`  // SecretID.String() -> version
	Steps    []ReceiptStep     `json:"steps,omitempty"`    // in order of their beginning
}

// RuleChange counts the rules that differ between two states.
type RuleChange struct {
	Added   int `json:"added"`
	Removed int `json:"removed"`
}

// Written counts what has been written to the kernel's tables.
type Written struct {
	Commits int // of nat tables, one for each address family
	Rules   RuleChange
	Last    time.Time // when the last of them was done
}

// Add counts what o counts too.
func (w *Written) Add(o Written) {
	w.Commits += o.Commits
	w.Rules.Added += o.Rules.Added
	w.Rules.Removed += o.Rules.Removed
	if o.Last.After(w.Last) {
		w.Last = o.Last
	}
}

// The steps of a rollout. Those of all replicas of a service are one.
const (
	StepPull   = "pull"   // images are found or pulled
	StepCreate = "create" // namespace, link, container
	StepStart  = "start"  // secrets, process
	StepReady  = "ready"  // from the start to the first probe that passes
	StepRules  = "rules"  // new rules are made and committed
	StepDrain  = "drain"  // old connections finish
	StepStop   = "stop"   // from the stop signal to the end of the process
)

// ReceiptStep is a part of a rollout.
type ReceiptStep struct {
	Name    string    `json:"name"`              // pull, create, start, ready, rules, drain or stop
	Service string    `json:"service,omitempty"` // empty = of all
	At      time.Time `json:"at"`                // when it first began
	Took    Duration  `json:"took"`              // the time in which it was at work on some replica; what went on side by side counts once
	Times   int       `json:"times"`             // replicas, or commits
}

// Sum is the tally of all targets together; its gap is the longest one.
func (r Receipt) Sum() VisitTally {
	var out VisitTally
	for _, v := range r.Visits {
		out.Sent += v.Sent
		out.Failed += v.Failed
		out.Unreached += v.Unreached
		out.LongestGap = max(out.LongestGap, v.LongestGap)
	}
	return out
}
