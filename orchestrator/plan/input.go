package plan

import (
	"net/netip"
	"sort"
	"time"

	"dunnage/spec"
)

// Desired is what should be true, sorted by project name.
type Desired struct {
	Projects []Project

	// Down are projects that were taken down and of which something is left,
	// with the release that ran last: it says in which order they stop.
	Down []Project
}

// Project returns the project called name.
func (d Desired) Project(name string) (Project, bool) {
	for _, p := range d.Projects {
		if p.Record.Name == name {
			return p, true
		}
	}
	return Project{}, false
}

// Project is a project's desired release and, while it differs, the one to go
// back to.
type Project struct {
	Record  spec.ProjectRecord
	Release spec.Release
	Good    *spec.Release // nil before the first release converged

	Leaving []string // services of Release that only Good has; see KeepLeaving
	Beside  []string // and those that aren't in it, but stay in the network that they share
}

// Rolling reports whether the desired release has yet to prove itself.
func (p Project) Rolling() bool { return p.Record.Desired != p.Record.Good }

// Observed is what is now.
type Observed struct {
	Now      time.Time
	Replicas []Replica // all that engine, network or store know, sorted by ID

	Visits map[string][]Visited // by project, of those with a rollout under way

	// Applied is the routing that the kernel's rules equal, if RulesEqual.
	Applied    spec.Routing
	RulesEqual bool

	// Absent is that of the plan before.
	Absent map[string]Absence

	Committed time.Time    // when Applied was committed; zero = not by this agent
	Fronts    []netip.Addr // the host's own addresses that clients use
	Reach     []spec.Reach // what the visitor found, sorted by key

	// Doubtful are images that a power cut may have damaged: from these nothing
	// is started.
	Doubtful []spec.DoubtfulImage

	// Held: the plan isn't carried out, so what isn't desired stays as it is.
	Held bool
}

// Replica is one replica as engine, network, store and probes see it together.
// It is handed around by pointer, because it is large and there are many, and
// read only: the planner changes nothing of what was observed.
type Replica struct {
	spec.ReplicaKey
	Exists    bool // as a container
	Attached  bool // to the network, its own or who it joins's, with all that belongs to it
	Recorded  bool // in the store
	Record    spec.ReplicaRecord
	Phase     spec.Phase // of an existing container
	Pid       int
	Hung      int // pid of its shim, if that doesn't answer; 0 = it does
	LogWriter spec.LogWriter
	StartedAt time.Time
	ExitedAt  time.Time
	ExitCode  int
	OOM       bool
	OOMKills  int // processes of it that the kernel has killed for want of memory since the start, and that it has outlived

	Health spec.Health
	Detail string // the last failed probe, one line

	Named bool // a rule of the kernel names one of its addresses
	// RoutedSince is when a rule was first seen to name its present process;
	// zero unless Named. Of one that ran before the agent: when it started.
	RoutedSince time.Time
	Conns       int  // live connections to it; counted only while it runs unnamed
	Uncounted   bool // it was warm at the look before, so that Conns isn't known

	DrainingSince time.Time // when it was first seen running and unnamed
	StoppingSince time.Time // when the stop signal was sent

	Names string // what its hosts file says, as Names.String; "" = not known

	Delivered string // fingerprint of the secrets on its tmpfs

	Written int64 // bytes of the writable layer, when it was measured last in this run; 0 = not yet

	Limits  string // fingerprint of those in force
	Refused string // fingerprint of those that couldn't be set, if that is what failed last

	Error   string // the last failed action on it, one line
	Errors  int    // consecutive failed actions
	ErrorAt time.Time
	NoSpace bool // they failed for want of space on disk
}

// Alive reports whether a process of the replica may still run.
func (r *Replica) Alive() bool {
	return r.Exists && (r.Phase == spec.PhaseRunning || r.Phase == spec.PhasePaused || r.Phase == spec.PhaseLost)
}

// detached reports whether something of the replica's own network is missing.
func (r *Replica) detached() bool { return !r.Attached && r.Record.Joins == "" }

// Usable reports whether connections may be sent to the replica. One whose
// health isn't known yet, because the agent has just started, is believed as
// long as the kernel sends connections to it.
func (r *Replica) Usable() bool {
	if !r.Exists || r.Phase != spec.PhaseRunning || !r.StoppingSince.IsZero() {
		return false
	}
	return r.Health == spec.HealthHealthy || (r.Health == spec.HealthUnknown && r.Named)
}

// Done reports whether the replica is a job that has ended well and isn't
// started again.
func (r *Replica) Done() bool {
	over := r.Exists && (r.Phase == spec.PhaseExited || r.Phase == spec.PhaseCreated)
	return over && !r.Record.Running && !r.Record.Requested && r.Record.Exit != nil && r.Record.Exit.Code == 0 && !restarts(r.Record)
}

// neverBegan reports whether the run that the record speaks of didn't come to
// be: the agent died between recording and starting it, and the exit that the
// engine still shows is the one before; or the disk had no space for it, which is
// no exit of the program.
func (r *Replica) neverBegan() bool {
	if r.Phase == spec.PhaseCreated && r.NoSpace {
		return true
	}
	return r.Phase == spec.PhaseExited && r.Record.Exit != nil && r.Record.Exit.At.Equal(r.ExitedAt)
}

// begins reports whether a run is asked for and recorded that hasn't come to be yet:
// it is tried until it does, whatever the restart policy says of the exit before.
func (r *Replica) begins() bool { return r.Record.Running && r.neverBegan() }

// Addr returns the replica's addresses in the network, zero when it has none.
func (r *Replica) Addr(network string) (netip.Addr, netip.Addr) {
	for _, a := range r.Record.Addresses {
		if a.Network == network {
			return a.Addr, a.Addr6
		}
	}
	return netip.Addr{}, netip.Addr{}
}

func (o Observed) find(id string) (*Replica, bool) {
	i := sort.Search(len(o.Replicas), func(i int) bool { return o.Replicas[i].ID >= id })
	if i == len(o.Replicas) || o.Replicas[i].ID != id {
		return nil, false
	}
	return &o.Replicas[i], true
}
