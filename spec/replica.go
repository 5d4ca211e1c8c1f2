package spec

import (
	"net/netip"
	"time"
)

// ReplicaKey says which replica an instance is.
type ReplicaKey struct {
	ID         string `json:"id"`
	Project    string `json:"project"`
	Service    string `json:"service"`
	Generation string `json:"generation"`
	Number     int    `json:"number"`
}

// Phase is what the engine knows of an instance's process.
type Phase string

// The phases of an instance.
const (
	PhaseCreated Phase = "created" // no process: never started, or lost with a reboot
	PhaseRunning Phase = "running"
	PhasePaused  Phase = "paused"
	PhaseExited  Phase = "exited" // the process is gone and its exit code is known or lost (255)
	PhaseLost    Phase = "lost"   // the shim is gone but the process still lives: neither usable nor replaceable yet
)

// Instance is a container as the engine sees it now.
type Instance struct {
	ReplicaKey
	Image     string    `json:"image"` // PinnedImage.Pinned()
	Phase     Phase     `json:"phase"`
	Pid       int       `json:"pid,omitempty"` // 0 unless running, paused or lost
	StartedAt time.Time `json:"started_at,omitzero"`
	ExitedAt  time.Time `json:"exited_at,omitzero"`
	ExitCode  int       `json:"exit_code,omitempty"`
	OOM       bool      `json:"oom,omitempty"`       // it has ended because the kernel killed it, or another process of it just before, for want of memory
	OOMKills  int       `json:"oom_kills,omitempty"` // processes that the kernel has killed for want of memory since the start, which the replica has outlived
	Limits    string    `json:"limits,omitempty"`    // Limits.Fingerprint() of those in force
	Hung      int       `json:"hung,omitempty"`      // pid of its shim, if that hasn't answered for a while; 0 = it answers
	LogWriter LogWriter `json:"log_writer,omitzero"`
}

// LogWriter is what is wrong with a replica's log writer; zero = nothing.
type LogWriter struct {
	Trouble WriterTrouble `json:"trouble,omitempty"`
	Pid     int           `json:"pid,omitempty"` // 0 = it is gone
}

// WriterTrouble says what is wrong with a log writer; empty = nothing.
type WriterTrouble string

// The troubles of log writers.
const (
	WriterGone    WriterTrouble = "gone"    // what the replica prints is lost
	WriterStopped WriterTrouble = "stopped" // by SIGSTOP or a debugger: the replica blocks once its pipe is full
	WriterStuck   WriterTrouble = "stuck"   // it hangs in the kernel, spins or is frozen: likewise
	WriterFails   WriterTrouble = "fails"   // it reads and writes nothing, as its disk is full or hangs: what the replica prints is lost
)

// CreateRequest is all that the engine needs to create a replica's container.
type CreateRequest struct {
	ReplicaKey
	Image     PinnedImage
	Container Container
	Limits    Limits
	Logging   Logging
	Hostname  string
	NetNS     string    // path of the bind-mounted network namespace
	Files     HostFiles // mounted over the image's
	Secrets   SecretPaths
}

// HostFiles are the files that the network adapter writes for a replica and
// that the engine bind-mounts into it. All paths are absolute.
type HostFiles struct {
	Hosts      string // /etc/hosts
	ResolvConf string // /etc/resolv.conf
	Hostname   string // /etc/hostname
}

// Endpoint is a replica's place in the network: one namespace, one link, an
// address for each network it is in. In the host's network and in none it has
// neither link nor addresses.
type Endpoint struct {
	Replica    string            // ReplicaKey.ID
	Network    NetworkMode       // never NetworkService: such a replica has no place of its own
	Hostname   string            // written to /etc/hostname and, with the first address, to /etc/hosts
	DomainName string            // after Hostname in /etc/hosts
	Addresses  []EndpointAddress // sorted by Network; the first that isn't internal is the source of outside traffic
	Hosts      []HostName        // what the manifest adds to /etc/hosts
	Names      []NamedAddress    // what /etc/hosts says of others, in order
	DNS        DNS
}

// EndpointAddress is a replica's address in one network. Addr6 and Subnet6
// are zero where the host has no IPv6.
type EndpointAddress struct {
	Network  string       `json:"network"` // NetworkID
	Addr     netip.Addr   `json:"addr"`
	Addr6    netip.Addr   `json:"addr6,omitzero"`
	Subnet   netip.Prefix `json:"subnet"`
	Subnet6  netip.Prefix `json:"subnet6,omitzero"`
	Internal bool         `json:"internal,omitempty"`
}

// NamedAddress is one line of /etc/hosts.
type NamedAddress struct {
	Addr  netip.Addr
	Names []string
}

// Health is what the probes say of a running replica.
type Health string

// The states of health.
const (
	HealthStarting  Health = "starting" // no probe has passed yet
	HealthHealthy   Health = "healthy"
	HealthUnhealthy Health = "unhealthy"
	HealthUnknown   Health = "" // not running, not looked at since the agent started, or, in a status, nothing to look at but the process
)

// ProbeTarget is a process to be probed.
type ProbeTarget struct {
	Project   string
	Service   string
	Replica   string
	Addr      netip.Addr // where http and tcp ask; zero = nothing can be asked from outside
	StartedAt time.Time
	Probes    []Probe
	Adopted   bool // it ran before the agent did: unknown until looked at
	Accepted  bool // its accept probe has passed, and isn't run again
}
