package spec

import "net/netip"

// Project is one manifest in its normalised form: defaults filled in, ranges
// expanded, relative paths made absolute. Slices are sorted by name.
type Project struct {
	Name     string    `json:"name"`
	Services []Service `json:"services"`
	Networks []Network `json:"networks,omitempty"`
	Volumes  []Volume  `json:"volumes,omitempty"`

	Secrets []SecretDeclaration `json:"secrets,omitempty"` // those that a service uses
}

// Secret returns what the manifest calls name.
func (p Project) Secret(name string) (SecretDeclaration, bool) {
	for _, s := range p.Secrets {
		if s.Name == name {
			return s, true
		}
	}
	return SecretDeclaration{}, false
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

// InStep reports whether the service is replaced together with the one whose
// network it joins: new replicas of both get ready beside the old ones. Were it
// replaced alone, old and new would listen on the same ports of one network.
func (p Project) InStep(s Service) bool {
	to, ok := p.Service(s.Container.Joins)
	return ok && s.Container.Network == NetworkService && s.Update.Order == StartFirst && to.Update.Order == StartFirst
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
	Shared   string `json:"shared,omitempty"`   // host-wide name of a network that is shared with other projects; empty = the project's own
	Internal bool   `json:"internal,omitempty"` // members can't reach, nor be reached from, outside the network
	IPv6     bool   `json:"ipv6,omitempty"`     // names resolve to IPv6 too; addresses exist either way
}

// NetworkID is the host-wide name of a project's own network: "<project>_<name>".
func NetworkID(project, network string) string { return project + "_" + network }

// NetworkID is the host-wide name of the network that the manifest calls name.
func (p Project) NetworkID(name string) string {
	if n, ok := p.Network(name); ok && n.Shared != "" {
		return n.Shared
	}
	return NetworkID(p.Name, name)
}

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
	Name      string        `json:"name"`
	Replicas  int           `json:"replicas"` // wanted, 0 or more
	Container Container     `json:"container"`
	Pull      PullPolicy    `json:"pull_policy,omitempty"`
	Build     string        `json:"build,omitempty"` // the command that builds the image, told when it isn't stored
	Ports     []Port        `json:"ports,omitempty"`
	Limits    Limits        `json:"limits,omitzero"`
	Restart   RestartPolicy `json:"restart"`
	Unhealthy OnUnhealthy   `json:"on_unhealthy,omitempty"`

	OnSecretChange OnSecretChange `json:"on_secret_change,omitempty"`

	Update    UpdatePolicy   `json:"update"`             // how a new release comes in
	Rollback  *UpdatePolicy  `json:"rollback,omitempty"` // how an earlier one comes back; nil = as Update
	Canary    *Canary        `json:"canary,omitempty"`
	DependsOn []Dependency   `json:"depends_on,omitempty"`
	Drain     Duration       `json:"drain"`                // how long connections of a replaced replica may finish; 0 = not at all
	Hold      Duration       `json:"hold,omitempty"`       // how long new connections wait while no replica is ready, before they are refused; 0 = refused at once
	KeepWarm  Duration       `json:"keep_warm,omitempty"`  // how long the generation before keeps running after a release has converged
	MaxFailed int            `json:"max_failed,omitempty"` // visits that may fail while a release comes in, before it goes back
	Allow     []netip.Prefix `json:"allow,omitempty"`      // clients that may use the published ports; empty = all
	Sticky    bool           `json:"sticky,omitempty"`     // a client's address stays with one replica
	Ramp      Duration       `json:"ramp,omitempty"`       // a new replica's share of connections grows to the full one over this time
	Logging   Logging        `json:"logging,omitzero"`
	Disk      int64          `json:"disk,omitempty"`   // bytes that the writable layer of a replica may have; past it the replica is replaced; 0 = any
	Orphan    bool           `json:"orphan,omitempty"` // no longer in the manifest, kept until --remove-orphans
}

// PullPolicy says when a deploy asks the registry for an image.
type PullPolicy string

// The pull policies.
const (
	PullMissing PullPolicy = ""       // when it isn't stored
	PullAlways  PullPolicy = "always" // a moved tag is followed
	PullNever   PullPolicy = "never"
)

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

// RestartPolicy says whether and when an exited replica is started again.
type RestartPolicy struct {
	Mode   RestartMode `json:"mode"`
	Max    int         `json:"max,omitempty"`    // restarts in a row; 0 = no limit
	Delay  Duration    `json:"delay,omitempty"`  // from an exit to the next start; 0 = at once, then longer each time
	Window Duration    `json:"window,omitempty"` // a run this long is no failure in a row; 0 = 10 s
}

// EndsNever reports whether a replica is started again also when it ended well,
// so that nobody sees its service completed.
func (p RestartPolicy) EndsNever() bool {
	return p.Mode == RestartAlways || p.Mode == RestartUnlessStopped
}

// Logging are the options of the log writer; zero = the agent's defaults.
type Logging struct {
	MaxSize  int64      `json:"max_size,omitempty"` // bytes of a file until it is rotated; 4 KiB at least
	MaxFile  int        `json:"max_file,omitempty"` // files kept, the one that is written included
	Compress Toggle     `json:"compress,omitempty"` // of the files that aren't written any more
	Forward  LogForward `json:"forward,omitzero"`
}

// Toggle is on, off or, by default, left to somebody else.
type Toggle string

// The positions of a Toggle.
const (
	On  Toggle = "on"
	Off Toggle = "off"
)

// Journald is the LogForward.To of systemd's journal.
const Journald = "journald"

// LogForward is where lines go too, besides the log. What can't be sent is
// dropped there, never here.
type LogForward struct {
	To       string `json:"to,omitempty"`       // "journald", or a syslog: udp://ADDRESS:PORT, tcp://ADDRESS:PORT, unix:///PATH; empty = nowhere
	Tag      string `json:"tag,omitempty"`      // names the lines; empty = PROJECT-SERVICE-NUMBER
	Facility string `json:"facility,omitempty"` // one of SyslogFacilities; empty = daemon
	Format   string `json:"format,omitempty"`   // of a syslog: rfc5424 or rfc3164; empty = rfc5424, and rfc3164 to a socket of this host
}

// SyslogFacilities are syslog's names of where a line comes from, by their
// number (RFC 5424, table 1).
var SyslogFacilities = []string{
	"kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
	"ntp", "security", "console", "solaris-cron", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
}

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
