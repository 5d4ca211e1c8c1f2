package spec

import "time"

// Stats is what `stats` shows.
type Stats struct {
	At       time.Time      `json:"at"`
	Cores    int            `json:"cores"`    // of the host
	Memory   int64          `json:"memory"`   // of the host, in bytes
	Replicas []ReplicaStats `json:"replicas"` // those that run, sorted by project, service and replica
	Own      []OwnStats     `json:"own"`      // what dunnage itself takes
}

// ReplicaStats is what a replica uses, and at what rate.
type ReplicaStats struct {
	Usage
	Rates *Rates `json:"rates,omitempty"` // missing when it has run for less than a tenth of a second
}

// Rates are differences of two counts by the time between them.
type Rates struct {
	Over      Duration `json:"over"`                // the time up to the usage's `at`
	Cores     float64  `json:"cores"`               // 1.5 = one and a half core
	Throttled float64  `json:"throttled,omitempty"` // part of the periods of its CPU limit in which it had to wait, 0 to 1

	// Bytes a second.
	Received float64 `json:"received"`
	Sent     float64 `json:"sent"`
	Read     float64 `json:"read"`
	Written  float64 `json:"written"`
}

// OwnStats is what programs of dunnage take together.
type OwnStats struct {
	Name      string   `json:"name"` // agent, containerd, shims, log writers
	Processes int      `json:"processes"`
	CPU       Duration `json:"cpu"`             // time on all cores
	Memory    int64    `json:"memory"`          // bytes that they share with nobody: without their programs' code
	Cores     *float64 `json:"cores,omitempty"` // CPU time by time; missing before the second count
}

// leastOver is the shortest time that a rate says anything about: the kernel
// counts CPU time in steps of some milliseconds.
const leastOver = 100 * time.Millisecond

// RatesOf compares two counts of a replica. Without an earlier one of the present
// process the rates are those since its start; nil where that is too young to say.
func RatesOf(before, now Usage) *Rates {
	if now.Started.After(before.At) { // the kernel counts a link's bytes on
		before = Usage{At: now.Started, Received: before.Received, Sent: before.Sent}
	}
	over := now.At.Sub(before.At)
	if before.At.IsZero() || over < leastOver {
		return nil
	}
	rate := func(before, now int64) float64 { return float64(max(now-before, 0)) / over.Seconds() }
	r := &Rates{
		Over:     Duration(over),
		Cores:    max(now.CPU-before.CPU, 0).Std().Seconds() / over.Seconds(),
		Received: rate(before.Received, now.Received), Sent: rate(before.Sent, now.Sent),
		Read: rate(before.Read, now.Read), Written: rate(before.Written, now.Written),
	}
	if periods := now.Periods - before.Periods; periods > 0 {
		r.Throttled = min(float64(max(now.ThrottledPeriods-before.ThrottledPeriods, 0))/float64(periods), 1)
	}
	return r
}
