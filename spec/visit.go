package spec

import (
	"maps"
	"net/netip"
	"slices"
	"time"
)

// Vantage is where a visit begins.
type Vantage string

// The vantages.
const (
	FromOutside Vantage = ""     // the visitor's namespace: PREROUTING, DNAT, FORWARD, as a client of another machine
	FromHost    Vantage = "host" // the host itself: OUTPUT
)

// VisitTarget is an address that clients use, as the visitor asks it.
type VisitTarget struct {
	Project string         `json:"project"`
	Service string         `json:"service"`
	From    Vantage        `json:"from,omitempty"`
	Addr    netip.AddrPort `json:"addr"`
	Port    uint16         `json:"port,omitempty"`  // published; 0 = a service address
	Path    string         `json:"path,omitempty"`  // asked by HTTP GET, where a status below 500 is an answer; empty = a TCP connection is enough
	Often   bool           `json:"often,omitempty"` // an operation is under way

	// Absent: no replica takes its connections, or one that answers some of them
	// in another's network has yet to come, so that a failure says nothing of the
	// way to one.
	Absent bool `json:"absent,omitempty"`
	// Patience is how long a visit may take while Absent, beside the usual
	// second: connections are held for this long.
	Patience Duration `json:"patience,omitempty"`
}

// Key tells targets apart.
func (t VisitTarget) Key() string { return string(t.From) + " " + t.Addr.String() }

// ReachState says whether clients get through.
type ReachState string

// The states of a target.
const (
	ReachUnknown     ReachState = "" // not asked yet
	ReachReachable   ReachState = "reachable"
	ReachUnreachable ReachState = "unreachable" // three visits in a row failed while replicas took connections
)

// Reach is what the visitor found at a target.
type Reach struct {
	VisitTarget
	State   ReachState `json:"state"`
	Since   time.Time  `json:"since,omitzero"`   // of the state
	Asked   time.Time  `json:"asked,omitzero"`   // the beginning of the last visit that succeeded; zero = none has yet
	Failed  int        `json:"failed,omitempty"` // visits in a row that failed since, while replicas took connections
	Failing time.Time  `json:"failing,omitzero"` // the beginning of the first of them
	Latency Duration   `json:"latency,omitempty"`
	Detail  string     `json:"detail,omitempty"` // the last failure, one line

	Unasked string `json:"unasked,omitempty"` // why the visitor can't ask, one line; empty = it can
}

// VisitTally counts the visits of one target that began in a time. Those before
// the first that ever succeeded aren't counted: nobody was served there yet.
type VisitTally struct {
	VisitTarget
	Sent       int            `json:"sent"`
	Failed     int            `json:"failed"`
	Reasons    map[string]int `json:"reasons,omitempty"`     // why those failed, one line each
	LongestGap Duration       `json:"longest_gap,omitempty"` // in which clients may have met nobody: up to the end of a visit that succeeded, or of the last that failed, from the end of the last that succeeded before it, or from 50 ms before the first since then was due, which is later while visits are far apart
	// Unreached are visits that failed while none has ever succeeded; neither
	// Sent nor Failed counts them. 0 once one has.
	Unreached int `json:"unreached,omitempty"`
	// State is what the visits amounted to when they were counted.
	State ReachState `json:"state,omitempty"`
}

// Plus is both tallies in one: t of an earlier time, later of one after it.
func (t VisitTally) Plus(later VisitTally) VisitTally {
	later.Sent += t.Sent
	later.Failed += t.Failed
	later.Reasons = maps.Clone(later.Reasons)
	if later.Reasons == nil && len(t.Reasons) > 0 {
		later.Reasons = map[string]int{}
	}
	for _, why := range slices.Sorted(maps.Keys(t.Reasons)) {
		later.Reasons[why] += t.Reasons[why]
	}
	later.LongestGap = max(later.LongestGap, t.LongestGap)
	if later.Sent == 0 { // else one has succeeded by now
		later.Unreached += t.Unreached
	}
	return later
}
