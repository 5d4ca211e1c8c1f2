package spec

import "time"

// ProbeKind says how a replica's health is looked at.
type ProbeKind string

// The probe kinds.
const (
	ProbeExec    ProbeKind = "exec"    // a command inside the container exits 0
	ProbeHTTP    ProbeKind = "http"    // GET from the host answers 200 to 399
	ProbeTCP     ProbeKind = "tcp"     // a connection from the host is accepted
	ProbeRunning ProbeKind = "running" // the process has run for 2 s
	ProbeAccept  ProbeKind = "accept"  // a command inside the container exits 0, once, after the other probes and before any connection
	ProbeImage   ProbeKind = "image"   // the image's own HEALTHCHECK, with the times given here, 0 = the image's; resolved in a Release
)

// Probe is one health check. Interval is the time between the end of one check
// and the start of the next; until the first success it is StartInterval, and
// without one network probes repeat faster than Interval.
type Probe struct {
	Kind        ProbeKind `json:"kind"`
	Command     []string  `json:"command,omitempty"` // exec, accept: argv
	Port        uint16    `json:"port,omitempty"`    // http, tcp
	Path        string    `json:"path,omitempty"`    // http, starts with "/"
	Interval    Duration  `json:"interval"`          // default 30 s for exec, 5 s for http and tcp
	Timeout     Duration  `json:"timeout"`           // default 30 s for exec, 5 s for http and tcp
	StartPeriod Duration  `json:"start_period"`      // failures in it don't count
	Retries     int       `json:"retries"`           // consecutive failures until unhealthy, default 3

	StartInterval Duration `json:"start_interval,omitempty"` // Interval until the first success; 0 = soon at first, then less often
	Fallback      bool     `json:"fallback,omitempty"`       // holds only where the image has no HEALTHCHECK; resolved in a Release
	FromImage     bool     `json:"from_image,omitempty"`     // it is the image's own HEALTHCHECK; in a Release
}

// Check is one result of a probe.
type Check struct {
	At     time.Time `json:"at"` // of its start
	Took   Duration  `json:"took"`
	Probe  ProbeKind `json:"probe"`
	OK     bool      `json:"ok"`
	Detail string    `json:"detail,omitempty"` // why not, one line
}
