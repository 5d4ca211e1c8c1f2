package spec

import (
	"net/netip"
	"time"
)

// State is everything that outlives the agent, as the store keeps it.
type State struct {
	Projects   []ProjectRecord      // sorted by Name
	Releases   map[string][]Release // by project, sorted by Number
	Replicas   []ReplicaRecord      // sorted by ID
	Quarantine []QuarantinedAddress // sorted by Addr
	Secrets    []SecretRecord       // sorted by ID
	Versions   []SecretVersion      // sorted by ID and number; without what is sealed
	Key        *SecretKey           // nil = there is none yet
	Audited    AuditEntry           // the last one; zero = none
	Receipts   []Receipt            // those that have yet to settle, sorted by project and number
}

// ProjectRecord is what is kept of a project beside its releases.
type ProjectRecord struct {
	Name      string              `json:"name"`
	Desired   int                 `json:"desired"`            // release number that should be true
	Good      int                 `json:"good,omitempty"`     // the newest release that converged; 0 = none yet
	Next      int                 `json:"next"`               // number of the next release; never goes back
	Ran       []int               `json:"ran,omitempty"`      // releases that converged and weren't left by a rollback, the latest last
	Failed    []int               `json:"failed,omitempty"`   // releases that were given up
	Causes    map[int]string      `json:"causes,omitempty"`   // why those of Failed were, one line each; not known of old ones
	Left      []int               `json:"left,omitempty"`     // releases that somebody rolled back from
	Since     time.Time           `json:"since,omitzero"`     // when Desired became that, or a pause of it ended
	Backward  bool                `json:"backward,omitempty"` // Desired is one that came back: the services' Rollback policy holds
	Paused    string              `json:"paused,omitempty"`   // why the rollout stands still, one line; empty = it doesn't
	Reached   map[string]int      `json:"reached,omitempty"`  // by service that was stopped on request meanwhile: up to which number its replicas of Desired took connections
	Promoted  int                 `json:"promoted,omitempty"` // release whose canary was told to go on
	Ailing    []string            `json:"ailing,omitempty"`   // services that Desired left as they were, failing, before any release had converged: they neither fail nor delay it
	Down      bool                `json:"down,omitempty"`     // taken down: nothing of it should run, history stays
	Purge     []Volume            `json:"purge,omitempty"`    // volumes to remove once it is down and nothing of it is left
	Forget    bool                `json:"forget,omitempty"`   // drop what is kept of it, this record included, once it is down and nothing of it is left
	Stopped   []string            `json:"stopped,omitempty"`  // services that were stopped on request, sorted
	Held      []string            `json:"held,omitempty"`     // Stopped before the present rollout: again if it fails
	Networks  []NetworkAddressing `json:"networks,omitempty"`
	Addresses []ServiceLease      `json:"addresses,omitempty"`
	Warm      []WarmService       `json:"warm,omitempty"`     // at most one a service, sorted by service
	Receipts  int                 `json:"receipts,omitempty"` // number of the newest one

	// Secrets are the versions that were current when somebody decided about
	// Desired, by name: what is current now and isn't here has yet to be
	// brought to the project.
	Secrets SecretPins `json:"secrets,omitempty"`
}

// ServiceLease is the stable address of a service in a network. It stays until
// the project is taken down.
type ServiceLease struct {
	Service string     `json:"service"`
	Network string     `json:"network"` // NetworkID
	Addr    netip.Addr `json:"addr"`
	Addr6   netip.Addr `json:"addr6,omitzero"`
}

// ReplicaRecord is what is kept of a replica: what it takes to stop it after
// its release is gone, and how it fared.
type ReplicaRecord struct {
	ReplicaKey
	Image     string            `json:"image"`   // PinnedImage.Pinned()
	Release   int               `json:"release"` // that first wanted it
	Addresses []EndpointAddress `json:"addresses"`
	Network   NetworkMode       `json:"network_mode,omitempty"`
	Joins     string            `json:"joins,omitempty"` // replica whose namespace and host files it shares, with NetworkService
	Drain     Duration          `json:"drain"`
	StopGrace Duration          `json:"stop_grace_period"`
	Restart   RestartPolicy     `json:"restart"`
	Probes    []Probe           `json:"probes"`
	Restarts  int               `json:"restarts,omitempty"`  // starts after the first that nobody asked for; never goes back
	Failures  int               `json:"failures,omitempty"`  // consecutive short runs
	Exit      *Exit             `json:"exit,omitempty"`      // the last one
	Requested bool              `json:"requested,omitempty"` // the stop signal of this run was ours
	Unwell    bool              `json:"unwell,omitempty"`    // the stop signal of this run was for its health: it starts again
	Asked     bool              `json:"asked,omitempty"`     // somebody asked to restart it alone, and no run has begun since
	Accepted  bool              `json:"accepted,omitempty"`  // its accept probe has passed
	Outgrown  int64             `json:"outgrown,omitempty"`  // bytes of its writable layer, which the next run isn't to have: it is made anew; 0 = it stays
	Running   bool              `json:"running,omitempty"`   // was started, and no exit of that run is recorded yet
}

// Exit is the end of a replica's process.
type Exit struct {
	At   time.Time `json:"at"`
	Code int       `json:"code"`
	OOM  bool      `json:"oom,omitempty"`
	Disk int64     `json:"disk,omitempty"` // bytes of its writable layer, if they were why it was stopped
	Lost bool      `json:"lost,omitempty"` // the host or the agent went down under it: no failure of its own
}

// QuarantinedAddress may not be used again before Until.
type QuarantinedAddress struct {
	Addr  netip.Addr `json:"addr"`
	Until time.Time  `json:"until"`
}

// Commit is a set of changes that the store makes in one durable transaction:
// after it, all of them are there, or, if it failed, none.
type Commit struct {
	Projects       []ProjectRecord
	Releases       []ReleaseRecord
	DropProjects   []string        // by name, with their releases and receipts
	DropReleases   []ReleaseRecord // only Project and Release.Number count
	Replicas       []ReplicaRecord
	DropReplicas   []string // IDs
	Quarantine     []QuarantinedAddress
	DropQuarantine []netip.Addr
	Secrets        []SecretRecord
	DropSecrets    []SecretID
	Versions       []SecretVersion
	DropVersions   []SecretPin
	Key            *SecretKey   // nil = as it is
	Audit          []AuditEntry // in order
	Receipts       []Receipt    // of a project, those with the KeptReceipts highest numbers stay
}

// ReleaseRecord is a release of a project.
type ReleaseRecord struct {
	Project string
	Release Release
}
