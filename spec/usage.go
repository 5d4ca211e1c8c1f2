package spec

import "time"

// Usage is what a replica has used and uses, as the kernel counts it. Counters
// begin with the replica's process, those of its link with the replica.
type Usage struct {
	Project string    `json:"project"`
	Service string    `json:"service"`
	Replica string    `json:"replica"` // ReplicaKey.ID
	At      time.Time `json:"at"`
	Started time.Time `json:"started,omitzero"` // the process; zero where that isn't known yet

	CPU      Duration `json:"cpu"`                 // time on all cores
	CPULimit float64  `json:"cpu_limit,omitempty"` // cores; 0 = none
	// The kernel hands the CPU limit out by periods. Throttled ones are those in
	// which the replica had used it up and waited; Throttled is how long, on all cores.
	Periods          int64    `json:"periods,omitempty"`
	ThrottledPeriods int64    `json:"throttled_periods,omitempty"`
	Throttled        Duration `json:"throttled,omitempty"`
	Memory           int64    `json:"memory"`                 // bytes that the kernel can't simply drop: without the inactive page cache
	MemoryLimit      int64    `json:"memory_limit,omitempty"` // bytes; 0 = none
	Pids             int64    `json:"pids"`
	PidsLimit        int64    `json:"pids_limit,omitempty"`

	// Bytes that came in and went out through the replica's own link; both 0 in
	// the host's network, or in another replica's.
	Received int64 `json:"received"`
	Sent     int64 `json:"sent"`

	// Bytes from and to block devices.
	Read    int64 `json:"read"`
	Written int64 `json:"written"`
}

// LinkBytes is what went through a replica's own link, as the replica sees it.
type LinkBytes struct{ Received, Sent int64 }
