package spec

import (
	"net/netip"
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
	Port    uint16         `json:"port,omitempty"` // published; 0 = a service address
	Path    string         `json:"path,omitempty"` // asked by HTTP GET, where a status below 500 is an answer; empty = a TCP connection is enough
	Often   bool           `json:"often,omitempty"`
}

// Key tells targets apart.
func (t VisitTarget) Key() string { return string(t.From) + " " + t.Addr.String() }

// ReachState says whether clients get through.
type ReachState string

// The states of a target.
const (
	ReachUnknown     ReachState = "" // not asked yet
	ReachReachable   ReachState = "reachable"
	ReachUnreachable ReachState = "unreachable" // several visits in a row failed
)

// Reach is what the visitor found at a target.
type Reach struct {
	VisitTarget
	State   ReachState `json:"state"`
	Since   time.Time  `json:"since,omitzero"` // of the state
	Asked   time.Time  `json:"asked,omitzero"` // the beginning of the last visit that succeeded
	Latency Duration   `json:"latency,omitempty"`
	Detail  string     `json:"detail,omitempty"` // the last failure, one line
}

// VisitTally counts the visits of one target over a time.
type VisitTally struct {
	VisitTarget
	Sent       int            `json:"sent"`
	Failed     int            `json:"failed"`
	Reasons    map[string]int `json:"reasons,omitempty"`     // why those failed, one line each
	LongestGap Duration       `json:"longest_gap,omitempty"` // between the ends of two visits that succeeded
}
