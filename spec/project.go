package spec

import "net/netip"

// Project is one manifest in its normalised form: defaults filled in, ranges
// expanded, relative paths made absolute. Slices are sorted by name.
type Project struct {
	Name     string    `json:"name"`
	Services []Service `json:"services"`
	Networks []Network `json:"networks,omitempty"`
	Volumes  []Volume  `json:"volumes,omitempty"`
}

// Service returns the service called name.
func (p Project) Service(name string) (Service, bool) {
	for _, s := range p.Services {
		if s.Name == name {
			return s, true
		}
	}
	return Service{}, false
}

// Network returns the network that the manifest calls name.
func (p Project) Network(name string) (Network, bool) {
	for _, n := range p.Networks {
		if n.Name == name {
			return n, true
		}
	}
	return Network{}, false
}

// Network is a Compose network: a subnet out of the agent's pool whose members
// reach each other. Name is the manifest's key ("default").
type Network struct {
	Name     string `json:"name"`
	Internal bool   `json:"internal,omitempty"` // members can't reach, nor be reached from, outside the network
	IPv6     bool   `json:"ipv6,omitempty"`     // names resolve to IPv6 too; addresses exist either way
}

// NetworkID is the host-wide name of a project's network: "<project>_<name>".
func NetworkID(project, network string) string { return project + "_" + network }

// Volume is a named volume. ID is its host-wide name: "<project>_<name>", or
// what the manifest's `name:` says. An External volume must exist already.
type Volume struct {
	Name     string `json:"name"`
	ID       string `json:"id"`
	External bool   `json:"external,omitempty"`
}

// Service is one service of a project. What is under Container decides the
// generation: a change there means new replicas. Everything beside it is
// applied to the running ones.
type Service struct {
	Name      string         `json:"name"`
	Replicas  int            `json:"replicas"` // wanted, 0 or more
	Container Container      `json:"container"`
	Ports     []Port         `json:"ports,omitempty"`
	Restart   RestartPolicy  `json:"restart"`
	Order     UpdateOrder    `json:"order"` // already resolved: stop-first with a writable volume
	DependsOn []Dependency   `json:"depends_on,omitempty"`
	Drain     Duration       `json:"drain"`            // how long connections of a replaced replica may finish; 0 = not at all
	Allow     []netip.Prefix `json:"allow,omitempty"`  // clients that may use the published ports; empty = all
	Orphan    bool           `json:"orphan,omitempty"` // no longer in the manifest, kept until --remove-orphans
}

// Container is what shapes a replica. Two equal Containers with the same image
// digest are the same generation.
type Container struct {
	Image         string            `json:"image"` // as written in the manifest
	ContainerName string            `json:"container_name,omitempty"`
	Entrypoint    []string          `json:"entrypoint"`            // nil = the image's; empty = cleared
	Command       []string          `json:"command"`               // nil = the image's; empty = cleared
	Environment   []string          `json:"environment,omitempty"` // KEY=VALUE, sorted by key
	Hostname      string            `json:"hostname,omitempty"`    // empty = the replica's short name
	User          string            `json:"user,omitempty"`        // empty = the image's
	WorkingDir    string            `json:"working_dir,omitempty"` // empty = the image's
	CapAdd        []string          `json:"cap_add,omitempty"`     // "CAP_NET_ADMIN", "ALL"; sorted
	CapDrop       []string          `json:"cap_drop,omitempty"`
	ReadOnly      bool              `json:"read_only,omitempty"`
	Mounts        []Mount           `json:"mounts,omitempty"`   // sorted by Target
	ShmSize       int64             `json:"shm_size,omitempty"` // bytes; 0 = 64 MiB
	Ulimits       []Ulimit          `json:"ulimits,omitempty"`  // sorted by Name
	Labels        map[string]string `json:"labels,omitempty"`
	StopSignal    string            `json:"stop_signal,omitempty"` // "SIGQUIT"; empty = the image's, else SIGTERM
	StopGrace     Duration          `json:"stop_grace_period"`     // from the stop signal to SIGKILL; default 10 s
	Networks      []Attachment      `json:"networks"`              // sorted by Name
	Expose        []PortProto       `json:"expose,omitempty"`
	Probes        []Probe           `json:"probes"`          // all must pass; never empty
	Epoch         int               `json:"epoch,omitempty"` // raised by `dunnage restart`, so that it rolls
}

// Writable reports whether the container may write to a bind mount or a named
// volume: two generations of it side by side could corrupt the data.
func (c Container) Writable() bool {
	for _, m := range c.Mounts {
		if m.Type != MountTmpfs && m.Source != "" && !m.ReadOnly {
			return true
		}
	}
	return false
}

// MountType says what is mounted.
type MountType string

// The mount types.
const (
	MountBind   MountType = "bind"   // Source is an absolute host path
	MountVolume MountType = "volume" // Source is a Volume.ID; empty = anonymous, removed with the replica
	MountTmpfs  MountType = "tmpfs"
)

// Mount is a bind mount, a volume or a tmpfs at Target.
type Mount struct {
	Type       MountType `json:"type"`
	Source     string    `json:"source,omitempty"`
	Target     string    `json:"target"`
	ReadOnly   bool      `json:"read_only,omitempty"`
	CreateHost bool      `json:"create_host_path,omitempty"` // bind: make a missing Source as a directory (Compose's short form)
	NoCopy     bool      `json:"nocopy,omitempty"`           // volume: don't fill a new volume from the image
	Size       int64     `json:"size,omitempty"`             // tmpfs: bytes, 0 = the kernel's default
	Mode       uint32    `json:"mode,omitempty"`             // tmpfs: permission bits, 0 = 1777
	Options    []string  `json:"options,omitempty"`          // noexec, nosuid, nodev, rshared ...; sorted
}

// Ulimit is one resource limit, named as setrlimit does in lower case ("nofile").
// -1 is unlimited.
type Ulimit struct {
	Name string `json:"name"`
	Soft int64  `json:"soft"`
	Hard int64  `json:"hard"`
}

// Attachment joins a service to a network of its project.
type Attachment struct {
	Name    string   `json:"name"`              // Network.Name
	Aliases []string `json:"aliases,omitempty"` // further names of the service there, sorted
}

// Protocol is the transport of a port.
type Protocol string

// The protocols that can be published.
const (
	TCP Protocol = "tcp"
	UDP Protocol = "udp"
)

// PortProto is a container's port.
type PortProto struct {
	Port     uint16   `json:"port"`
	Protocol Protocol `json:"protocol"`
}

// Port publishes Target on the host. With Published 0 the agent picks a free
// host port and keeps it for the service; with Last > Published it picks one
// out of [Published, Last]. In a Release every port is resolved: Published is
// the port in force and Last is 0.
type Port struct {
	HostIP    netip.Addr `json:"host_ip,omitzero"` // invalid (zero) = every address of the host, IPv4 and IPv6
	Published uint16     `json:"published,omitempty"`
	Last      uint16     `json:"last,omitempty"`
	Target    uint16     `json:"target"`
	Protocol  Protocol   `json:"protocol"`
}

// RestartMode says when an exited replica is started again.
type RestartMode string

// The restart modes of Compose.
const (
	RestartNo            RestartMode = "no"
	RestartOnFailure     RestartMode = "on-failure"
	RestartAlways        RestartMode = "always"
	RestartUnlessStopped RestartMode = "unless-stopped"
)

// RestartPolicy is a mode and, for on-failure, the number of tries (0 = no limit).
type RestartPolicy struct {
	Mode RestartMode `json:"mode"`
	Max  int         `json:"max,omitempty"`
}

// UpdateOrder says whether the new replicas start before the old ones stop.
type UpdateOrder string

// The update orders.
const (
	StartFirst UpdateOrder = "start-first"
	StopFirst  UpdateOrder = "stop-first"
)

// Condition is what a dependency must have reached.
type Condition string

// The conditions of Compose's depends_on.
const (
	DependStarted   Condition = "service_started"
	DependHealthy   Condition = "service_healthy"
	DependCompleted Condition = "service_completed_successfully"
)

// Dependency delays a service until another one has met Condition.
type Dependency struct {
	Service   string    `json:"service"`
	Condition Condition `json:"condition"`
	Optional  bool      `json:"optional,omitempty"` // Compose's required: false
}

// ProbeKind says how a replica's health is looked at.
type ProbeKind string

// The probe kinds.
const (
	ProbeExec    ProbeKind = "exec"    // a command inside the container exits 0
	ProbeHTTP    ProbeKind = "http"    // GET from the host answers 200 to 399
	ProbeTCP     ProbeKind = "tcp"     // a connection from the host is accepted
	ProbeRunning ProbeKind = "running" // the process has run for 2 s
)

// Probe is one health check. Interval is the time between the end of one check
// and the start of the next; until the first success, network probes repeat
// faster than that.
type Probe struct {
	Kind        ProbeKind `json:"kind"`
	Command     []string  `json:"command,omitempty"` // exec: argv
	Port        uint16    `json:"port,omitempty"`    // http, tcp
	Path        string    `json:"path,omitempty"`    // http, starts with "/"
	Interval    Duration  `json:"interval"`          // default 30 s for exec, 5 s for http and tcp
	Timeout     Duration  `json:"timeout"`           // default 30 s for exec, 5 s for http and tcp
	StartPeriod Duration  `json:"start_period"`      // failures in it don't count
	Retries     int       `json:"retries"`           // consecutive failures until unhealthy, default 3
}
