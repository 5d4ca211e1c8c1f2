package spec

import (
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"time"
)

// Status is one published snapshot of everything the agent knows. Slices are
// sorted by name.
type Status struct {
	At       time.Time       `json:"at"`
	Started  time.Time       `json:"started,omitzero"` // the agent; operations are kept since
	Events   time.Time       `json:"events,omitzero"`  // the first event that is kept
	Projects []ProjectStatus `json:"projects"`
	Problems []string        `json:"problems,omitempty"` // what keeps the agent from looking or acting, each "what is wrong; what to do": see SplitProblem
	Warnings []string        `json:"warnings,omitempty"` // what will keep something from working soon, each as of Problems
}

// ProjectStatus is a project's part of a Status.
type ProjectStatus struct {
	Name     string          `json:"name"`
	Release  int             `json:"release"`           // desired
	Rolling  bool            `json:"rolling,omitempty"` // the release has yet to prove itself
	Since    time.Time       `json:"since,omitzero"`    // of its rollout
	Paused   string          `json:"paused,omitempty"`  // why the rollout stands still, one line
	Failed   string          `json:"failed,omitempty"`  // why the release failed that stays the desired one nevertheless, one line
	Busy     string          `json:"busy,omitempty"`    // the operation at work on it, one line
	Services []ServiceStatus `json:"services"`
}

// ServiceStatus is a service's part of a Status.
type ServiceStatus struct {
	Name        string          `json:"name"`
	Generation  string          `json:"generation"`
	Wanted      int             `json:"wanted"`
	Ready       int             `json:"ready"`            // of the wanted generation
	Trial       int             `json:"trial,omitempty"`  // replicas on trial as a canary beside all the old ones
	Before      int             `json:"before,omitempty"` // replicas that the release before wants of it, while the desired one has yet to prove itself
	Stopped     bool            `json:"stopped,omitempty"`
	Orphan      bool            `json:"orphan,omitempty"`
	Waiting     string          `json:"waiting,omitempty"`   // why it isn't converged, in one line; empty = converged
	LeftDead    string          `json:"left_dead,omitempty"` // service with a replica that has exited and that its restart policy doesn't start again, for which this one won't get ready by itself: its own or one that it waits for
	Tolerated   string          `json:"tolerated,omitempty"` // which failures its policy leaves behind, in one line
	Ports       []Port          `json:"ports,omitempty"`
	Unreachable string          `json:"unreachable,omitempty"` // where clients don't get through to replicas that are well, in one line
	HeldUntil   time.Time       `json:"held_until,omitzero"`   // no replica is ready: new TCP connections wait until then, later ones are refused
	Replicas    []ReplicaStatus `json:"replicas"`
}

// Serving are the replicas that take the service's connections, of whichever
// generation: those that the rules name or, where they name none, that are ready.
func (s ServiceStatus) Serving() []ReplicaStatus {
	isUp := func(r ReplicaStatus) bool { return r.State == StateReady || r.State == StateUnreachable }
	byRules := slices.ContainsFunc(s.Replicas, func(r ReplicaStatus) bool { return r.Routed && isUp(r) })
	var out []ReplicaStatus
	for _, r := range s.Replicas {
		if isUp(r) && (r.Routed || !byRules) {
			out = append(out, r)
		}
	}
	return out
}

// Meanwhile says which release serves while the wanted generation doesn't serve
// alone or, where several do, with which shares; empty = it does, or nothing serves.
func (s ServiceStatus) Meanwhile() string {
	count, share := map[int]int{}, map[int]float64{}
	earlier := false
	for _, r := range s.Serving() {
		count[r.Release]++
		share[r.Release] += r.Share
		earlier = earlier || r.Generation != s.Generation
	}
	if !earlier {
		return ""
	}
	text, unit := "", " of new connections"
	for _, release := range slices.Sorted(maps.Keys(count)) {
		if text == "" {
			text = fmt.Sprintf("release %d serves meanwhile, with %d ready", release, count[release])
		} else {
			text += fmt.Sprintf(", and release %d with %d", release, count[release])
		}
		if len(count) > 1 && share[release] > 0 {
			text += fmt.Sprintf(" (%.0f %%%s)", 100*share[release], unit)
			unit = ""
		}
	}
	return text
}

// ReplicaState is the one word that `ps` shows.
type ReplicaState string

// The states of a replica.
const (
	StateCreated     ReplicaState = "created"
	StateStarting    ReplicaState = "starting" // running, not yet ready
	StateReady       ReplicaState = "ready"    // running and probes pass
	StateUnhealthy   ReplicaState = "unhealthy"
	StateUnreachable ReplicaState = "unreachable" // ready, and clients don't get through to it
	StateDraining    ReplicaState = "draining"    // out of the rules, old connections finish
	StateWarm        ReplicaState = "warm"        // running and out of the rules until WarmUntil: a rollback to it is one swap
	StateHeld        ReplicaState = "held"        // running and not wanted, and left so while the agent holds
	StateStopping    ReplicaState = "stopping"    // stop signal sent
	StateStopped     ReplicaState = "stopped"     // on request
	StateCompleted   ReplicaState = "completed"
	StateBackoff     ReplicaState = "backoff" // exited, next try at RetryAt
	StateFailed      ReplicaState = "failed"  // exited, no further try
	StateLost        ReplicaState = "lost"
)

// ReplicaStatus is one line of `ps --json`.
type ReplicaStatus struct {
	Project    string            `json:"project"`
	Service    string            `json:"service"`
	Replica    string            `json:"replica"` // ReplicaKey.ID
	Number     int               `json:"number"`
	Generation string            `json:"generation"`
	Release    int               `json:"release"` // the newest release that wants this generation and has converged, else the one that it was made for
	Image      string            `json:"image"`
	Labels     map[string]string `json:"labels,omitempty"` // of the container
	State      ReplicaState      `json:"state"`
	Health     Health            `json:"health"`
	Pid        int               `json:"pid"`
	Addresses  []netip.Addr      `json:"addresses"`
	Ports      []Port            `json:"ports"`           // published, while the kernel routes them here
	Routed     bool              `json:"routed"`          // named by the kernel's rules
	Share      float64           `json:"share,omitempty"` // part of the service's new connections that they send to it, 0 to 1
	Restarts   int               `json:"restarts"`        // that nobody asked for; never goes back
	Started    time.Time         `json:"started,omitzero"`
	ExitCode   *int              `json:"exit_code,omitempty"` // of the last exit
	RetryAt    time.Time         `json:"retry_at,omitzero"`
	Hung       int               `json:"hung,omitempty"`      // pid of its shim, if that hasn't answered containerd for a while
	WarmUntil  time.Time         `json:"warm_until,omitzero"` // of a warm one; not known before the release after it has converged
	Unwritten  bool              `json:"unwritten,omitempty"` // its log writer is gone or can't write: what it prints is lost; or stopped or stuck, and it blocks once its pipe is full
	Detail     string            `json:"detail,omitempty"`    // last probe failure or exit, one line
	Checks     []Check           `json:"checks,omitempty"`    // the last five, oldest first
}

// ShortName is what people call the replica among others: ShortReplica, or where
// two of its service have one such name, all of them in full.
func (r ReplicaStatus) ShortName(among []ReplicaStatus) string {
	names := map[string]string{}
	for _, o := range among {
		short := ShortReplica(o.Service, o.Replica)
		if first := names[short]; o.Service == r.Service && first != "" && first != o.Replica {
			return r.Replica
		}
		if o.Service == r.Service {
			names[short] = o.Replica
		}
	}
	return ShortReplica(r.Service, r.Replica)
}

// EventKind names what happened.
type EventKind string

// The kinds of events.
const (
	EventPull        EventKind = "pull"        // progress of an image
	EventRelease     EventKind = "release"     // a release became the desired one
	EventCreated     EventKind = "created"     // a replica
	EventStarted     EventKind = "started"     // a replica
	EventReady       EventKind = "ready"       // a replica
	EventLate        EventKind = "late"        // a replica has run for ten seconds and isn't ready
	EventUnhealthy   EventKind = "unhealthy"   // a replica
	EventUnreachable EventKind = "unreachable" // a service: its replicas are well, and clients don't get through to them
	EventReachable   EventKind = "reachable"   // a service, after that
	EventExited      EventKind = "exited"      // a replica
	EventOOM         EventKind = "oom"         // a replica goes on of which the kernel has killed a process for want of memory
	EventLimited     EventKind = "limited"     // a replica has other limits
	EventRouted      EventKind = "routed"      // the nat rules were swapped
	EventDraining    EventKind = "draining"    // a replica
	EventStopping    EventKind = "stopping"    // a replica
	EventRemoved     EventKind = "removed"     // a replica, a volume with its data, or what was kept of a project
	EventConverged   EventKind = "converged"   // a service
	EventFailed      EventKind = "failed"      // an operation
	EventDone        EventKind = "done"        // an operation
	EventProblem     EventKind = "problem"     // the agent can't look or act
	EventSecret      EventKind = "secret"      // a replica has other secrets
	EventCollected   EventKind = "collected"   // what nobody needed was removed from disk
	EventRepaired    EventKind = "repaired"    // rules, links or routes that others damaged; or a problem is over: "no longer: ..."
	EventAgentUp     EventKind = "agent-up"    // the agent has started: of which version, and how the one before it ended
	EventAgentDown   EventKind = "agent-down"  // the agent was stopped in order
)

// Event is something that happened. Seq grows, by one within one run of the agent; the
// next run begins at a higher one.
type Event struct {
	Seq       uint64        `json:"seq"`
	At        time.Time     `json:"at"`
	Kind      EventKind     `json:"kind"`
	Operation string        `json:"operation,omitempty"`
	Project   string        `json:"project,omitempty"`
	Service   string        `json:"service,omitempty"`
	Replica   string        `json:"replica,omitempty"`
	Message   string        `json:"message,omitempty"` // one line for people
	Pull      *PullProgress `json:"pull,omitempty"`
}

// PullProgress is the progress of one layer, or of the whole image when Layer
// is empty. Sizes are in bytes; Total is 0 while unknown.
type PullProgress struct {
	Image  string `json:"image"`
	Layer  string `json:"layer,omitempty"` // digest
	State  string `json:"state"`           // of a layer: waiting, downloading, done, exists; of an image: resolving, unpacking, ready
	Offset int64  `json:"offset,omitempty"`
	Total  int64  `json:"total,omitempty"`

	Waiting string `json:"waiting,omitempty"` // for which host an image that is resolving has waited for seconds, and what it does there
}

// OperationState is how far an operation has come.
type OperationState string

// The states of an operation.
const (
	OperationPulling    OperationState = "pulling"
	OperationRolling    OperationState = "rolling"
	OperationDone       OperationState = "done"
	OperationUnchanged  OperationState = "unchanged"   // nothing to do
	OperationFailed     OperationState = "failed"      // nothing was changed, or the project has no earlier release
	OperationRolledBack OperationState = "rolled-back" // the earlier release is desired again
	OperationWaiting    OperationState = "waiting"     // for the project's operation before it
	OperationReturning  OperationState = "returning"   // it has failed, and the earlier release is on its way back
	OperationPaused     OperationState = "paused"      // the rollout stands still until somebody says so
)

// Ended reports whether the state is final.
func (s OperationState) Ended() bool {
	switch s {
	case OperationWaiting, OperationPulling, OperationRolling, OperationReturning:
		return false
	default:
		return true
	}
}

// Operation is a change that somebody asked for. It goes on when the asking
// client is gone.
type Operation struct {
	ID       string           `json:"id"`
	Project  string           `json:"project"`
	Kind     string           `json:"kind"`            // deploy, or that of the ChangeRequest
	Owner    string           `json:"owner,omitempty"` // user who asked for it
	State    OperationState   `json:"state"`
	Release  int              `json:"release,omitempty"`
	Started  time.Time        `json:"started"`
	Since    time.Time        `json:"since,omitzero"` // when State became that: it may have waited for its turn first
	Ended    time.Time        `json:"ended,omitzero"`
	Cause    string           `json:"cause,omitempty"`   // one line, when failed or rolled back
	Replica  string           `json:"replica,omitempty"` // the one that failed
	Output   []string         `json:"output,omitempty"`  // what the check printed last that it failed by, where Cause doesn't have all of it; at most ten lines
	Log      []string         `json:"log,omitempty"`     // what it wrote last
	Warnings []string         `json:"warnings,omitempty"`
	Services []ServiceOutcome `json:"services,omitempty"` // one line a service, when ended
	Removed  []string         `json:"removed,omitempty"`  // volumes that down has removed, with their data
	Forgot   []int            `json:"forgot,omitempty"`   // releases that down --forget has forgotten, with the project's receipts
}

// ServiceOutcome is the last line that `deploy` prints for a service.
type ServiceOutcome struct {
	Name     string   `json:"name"`
	Change   Change   `json:"change"`
	Ready    int      `json:"ready"`
	Wanted   int      `json:"wanted"`
	Duration Duration `json:"duration"` // until converged
	Ports    []Port   `json:"ports,omitempty"`
	Detail   string   `json:"detail,omitempty"` // why not converged, or which failures are tolerated
}

// Change is what a release does to a service.
type Change string

// The changes.
const (
	ChangeNone    Change = "unchanged"
	ChangeCreate  Change = "create"
	ChangeReplace Change = "replace" // a new generation
	ChangeScale   Change = "scale"
	ChangeUpdate  Change = "update" // ports, policy: nothing restarts
	ChangeRemove  Change = "remove"
	ChangeOrphan  Change = "orphan" // not in the manifest, kept
	ChangeStop    Change = "stop"
	ChangeStart   Change = "start"
	ChangeRestart Change = "restart" // of replicas that were named, as they are
	ChangeBack    Change = "back"    // to what the earlier release has, after a rollback
)

// DeployRequest asks for a project as a manifest declares it.
type DeployRequest struct {
	Project Project `json:"project"`
	Turn
	Secrets       map[string]SecretValue `json:"-"`                  // values that the manifest brings, by name; the client sends them apart
	Inactive      []string               `json:"inactive,omitempty"` // services of the manifest whose profiles aren't active, sorted: they keep running, or stopped, as they are
	RemoveOrphans bool                   `json:"remove_orphans,omitempty"`
	Force         bool                   `json:"force,omitempty"` // replace even what didn't change
}

// Turn is how a request stands to another one that is at work on the project.
// With neither Wait nor TakeOver it is refused.
type Turn struct {
	Owner    string `json:"-"`                   // user who asks, as the kernel told the agent
	Wait     bool   `json:"wait,omitempty"`      // begin when the other has ended
	TakeOver bool   `json:"take_over,omitempty"` // end the other
}

// ChangeRequest asks for a change of a project that is deployed.
type ChangeRequest struct {
	Turn
	Kind     string         `json:"kind"`               // scale, stop, start, restart, down, rollback, pause, resume, promote
	Services []string       `json:"services,omitempty"` // stop, start, restart: empty = all; restart takes replicas instead: "web-1", "shop-web-1" or in full
	Replicas map[string]int `json:"replicas,omitempty"` // scale
	Release  int            `json:"release,omitempty"`  // rollback: 0 = the one before
	Volumes  bool           `json:"volumes,omitempty"`  // down: remove named volumes too
	Forget   bool           `json:"forget,omitempty"`   // down: drop releases and receipts too, also of a project that is down already
}

// Preview is what a deploy would do.
type Preview struct {
	Project  string           `json:"project"`
	From     int              `json:"from,omitempty"`   // the present release
	To       int              `json:"to,omitempty"`     // the release that it makes; 0 = none: nothing differs, and From has converged
	Paused   string           `json:"paused,omitempty"` // why its rollout stands still, which a deploy ends; empty = it doesn't
	Services []ServicePreview `json:"services"`
	Pull     []ImagePull      `json:"pull,omitempty"`    // images that aren't present
	Rules    RuleDiff         `json:"rules"`             // between now and the end, when all replicas are ready
	Draining int              `json:"draining"`          // connections that are open now to replicas that go
	Secrets  []string         `json:"secrets,omitempty"` // versions that running replicas don't have: "db-password 17 -> 18"
	Notes    []string         `json:"notes,omitempty"`   // defaults that differ from Compose, orphans ...
}

// ServicePreview is one service's part of a Preview.
type ServicePreview struct {
	Name     string      `json:"name"`
	Change   Change      `json:"change"`
	Order    UpdateOrder `json:"order"`
	From     int         `json:"from"` // replicas now; 0 of a service that is stopped on request
	To       int         `json:"to"`
	Draining int         `json:"draining,omitempty"` // connections that are open now to its replicas that go
	Gap      string      `json:"gap,omitempty"`      // whether clients notice the change, and why, one line
	Canary   string      `json:"canary,omitempty"`   // how many replicas take connections first, with which share and until when, one line
	Warm     string      `json:"warm,omitempty"`     // what is kept of the old generation, and what that costs, one line
	Changed  []string    `json:"changed,omitempty"`  // keys of the manifest that differ, for example "command" or "x-dunnage.drain", or other reasons: "image digest", "secret db-password 17 -> 18", "stopped on request"
}

// ExecRequest runs a command in a running replica.
type ExecRequest struct {
	Replica    string   `json:"replica"`
	Command    []string `json:"command"`
	Env        []string `json:"env,omitempty"`
	User       string   `json:"user,omitempty"`
	WorkingDir string   `json:"working_dir,omitempty"`
	TTY        bool     `json:"tty,omitempty"`
	Rows       uint16   `json:"rows,omitempty"`
	Cols       uint16   `json:"cols,omitempty"`
}

// LogRequest selects log lines: of the services and of the replicas, of all
// where neither is named.
type LogRequest struct {
	Project  string
	Services []string
	Replicas []string // ReplicaKey.ID, or "<service>-<number>" for that number of any generation
	// All includes replicas of earlier releases that are gone, as far as their
	// logs are kept. Without it they are where Since or Until is set, and a
	// service that has no replica shows the one that was removed last.
	All          bool
	Since, Until time.Time // of the first part of a line, both included; zero = open
	Grep         string    // what a whole line must match, as Pattern reads it; empty = anything
	Tail         int       // of each replica, the last lines that the rest selects; -1 = all, 0 = nothing of the past
	Follow       bool      // go on with what is written later, until Until if that is set
}

// longestPattern bounds what the agent compiles.
const longestPattern = 1000

// Pattern compiles Grep, an expression of RE2 (as package regexp has it).
func (r LogRequest) Pattern() (*regexp.Regexp, error) {
	if len(r.Grep) > longestPattern {
		return nil, fmt.Errorf("the expression has %d bytes, and may have %d", len(r.Grep), longestPattern)
	}
	return regexp.Compile(r.Grep)
}

// Wants reports whether r selects the lines of a replica.
func (r LogRequest) Wants(service, replica string) bool {
	return len(r.Services)+len(r.Replicas) == 0 || slices.Contains(r.Services, service) ||
		slices.Contains(r.Replicas, replica) || slices.Contains(r.Replicas, ShortReplica(service, replica))
}

// LogLine is one line, or part of a long line, that a replica wrote.
type LogLine struct {
	At      time.Time `json:"at"`
	Service string    `json:"service"`
	Replica string    `json:"replica"`
	Stream  string    `json:"stream"` // stdout, stderr
	Partial bool      `json:"partial,omitempty"`
	Text    []byte    `json:"text"` // without the line's end; any bytes
}

// Image is a stored image.
type Image struct {
	Ref     string    `json:"ref"`
	Digest  string    `json:"digest"`
	Size    int64     `json:"size"` // compressed bytes
	Created time.Time `json:"created,omitzero"`
	UsedBy  []string  `json:"used_by,omitempty"` // "project release N"
}

// NetworkStatus is one line of `net ls`.
type NetworkStatus struct {
	NetworkAddressing
	Project  string           `json:"project"`
	Services []ServiceAddress `json:"services"`
}

// ServiceAddress is a service's stable address in a network.
type ServiceAddress struct {
	Service string     `json:"service"`
	Addr    netip.Addr `json:"addr"`
	Addr6   netip.Addr `json:"addr6,omitzero"`
}

// RuleSet is what `net rules` shows: dunnage's part of the tables, rendered
// and as the kernel has it, in iptables-save's form, IPv4 then IPv6.
type RuleSet struct {
	Rendered string `json:"rendered"`
	Kernel   string `json:"kernel"`
	Held     string `json:"held,omitempty"` // why the agent doesn't repair them, one line; empty = it does
}
