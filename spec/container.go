package spec

import (
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"
)

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
	Networks      []Attachment      `json:"networks"`              // sorted by Name; empty unless Network is ""
	Expose        []PortProto       `json:"expose,omitempty"`
	Probes        []Probe           `json:"probes"`          // all must pass; never empty
	Epoch         int               `json:"epoch,omitempty"` // raised by `dunnage restart`, so that it rolls

	Network     NetworkMode       `json:"network_mode,omitempty"`
	Joins       string            `json:"joins,omitempty"`        // service whose replica of the same number it shares the network namespace of, with NetworkService
	HostPID     bool              `json:"host_pid,omitempty"`     // sees the host's processes
	HostIPC     bool              `json:"host_ipc,omitempty"`     // shares the host's System V and POSIX IPC
	Privileged  bool              `json:"privileged,omitempty"`   // only where the agent allows it
	Devices     []Device          `json:"devices,omitempty"`      // sorted by Target
	DeviceRules []string          `json:"device_rules,omitempty"` // "c 1:3 rwm", as the devices cgroup has them
	NewPrivs    bool              `json:"new_privileges,omitempty"`
	Seccomp     string            `json:"seccomp,omitempty"`  // empty = the default profile, "unconfined", or a profile as JSON
	AppArmor    string            `json:"apparmor,omitempty"` // empty = the default profile, "unconfined", or a loaded profile's name
	Sysctls     map[string]string `json:"sysctls,omitempty"`
	GroupAdd    []string          `json:"group_add,omitempty"` // names of the image or numbers
	Init        bool              `json:"init,omitempty"`      // dunnage-init is PID 1 and reaps zombies
	TTY         bool              `json:"tty,omitempty"`
	StdinOpen   bool              `json:"stdin_open,omitempty"`
	DomainName  string            `json:"domainname,omitempty"`
	ExtraHosts  []HostName        `json:"extra_hosts,omitempty"` // sorted by Name
	DNS         DNS               `json:"dns,omitzero"`
	Platform    string            `json:"platform,omitempty"` // "linux/arm64"; empty = the host's
	OOMScoreAdj int               `json:"oom_score_adj,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Files       []File            `json:"files,omitempty"`   // sorted by Target
	Secrets     []Secret          `json:"secrets,omitempty"` // sorted by Name, Target and Env
}

// SecretNames lists the secrets that the container uses, sorted, each once.
func (c Container) SecretNames() []string {
	var names []string
	for _, s := range c.Secrets {
		names = append(names, s.Name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Fixed says which of its secrets can't be swapped while the container runs,
// and why; empty if all can.
func (c Container) Fixed() string {
	for _, s := range c.Secrets {
		switch {
		case s.Env != "":
			return fmt.Sprintf("the variable %s has the secret %s, and the environment of a running process can't change", s.Env, s.Name)
		case s.Target != "" && !InSecretDir(s.Target):
			return fmt.Sprintf("the secret %s stands at %s, a mount of its own, which keeps what it has while the container runs; only files below %s can be swapped", s.Name, s.Target, SecretDir)
		}
	}
	for _, f := range c.Files {
		if f.Template && !InSecretDir(f.Target) {
			return fmt.Sprintf("the config at %s has secrets in it, and is a mount of its own, which keeps what it has while the container runs; only files below %s can be swapped", f.Target, SecretDir)
		}
	}
	return ""
}

// Crossings are pairs of its mounts, secrets and configs, by target, that can't
// both stand where they should: at one place, one below the other's file, or
// beside secrets and configs that have some in SecretDir, which is a directory
// of its own.
func (c Container) Crossings() (pairs [][2]string) {
	type place struct {
		target       string
		file, secret bool
	}
	var all []place
	var dir string // one of those in SecretDir
	for _, m := range c.Mounts {
		all = append(all, place{target: path.Clean(m.Target)})
	}
	for _, s := range c.Secrets {
		if s.Target == "" {
			continue
		}
		all = append(all, place{s.Target, true, true})
		if InSecretDir(s.Target) {
			dir = s.Target
		}
	}
	for _, f := range c.Files {
		all = append(all, place{f.Target, true, f.Template})
		if f.Template && InSecretDir(f.Target) {
			dir = f.Target
		}
	}
	at := map[string]place{}
	for _, p := range all {
		if first, ok := at[p.target]; ok && (p.file || first.file) {
			pairs = append(pairs, [2]string{p.target, p.target})
		} else if !ok {
			at[p.target] = p
		}
	}
	for _, p := range all {
		if at[p.target] != p {
			continue // told
		}
		if dir != "" && !p.secret && (p.target == SecretDir || InSecretDir(p.target)) {
			pairs = append(pairs, [2]string{dir, p.target})
			continue
		}
		for up := path.Dir(p.target); len(up) > 1; up = path.Dir(up) {
			if at[up].file {
				pairs = append(pairs, [2]string{up, p.target})
				break
			}
		}
	}
	return pairs
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

// SharedVolume is a named volume that all replicas may write to, "" if there is none.
func (c Container) SharedVolume() string {
	for _, m := range c.Mounts {
		if m.Type == MountVolume && m.Source != "" && !m.ReadOnly {
			return m.Source
		}
	}
	return ""
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

// NetworkMode says which network namespace a container runs in.
type NetworkMode string

// The network modes. Only in the first does a replica have addresses, and can
// its ports be published.
const (
	NetworkOwn     NetworkMode = ""        // its own, in the service's networks
	NetworkHost    NetworkMode = "host"    // the host's
	NetworkNone    NetworkMode = "none"    // its own, with nothing but the loopback
	NetworkService NetworkMode = "service" // that of another service's replica
)

// Device is a device node of the host that the container may use.
type Device struct {
	Source string `json:"source"` // absolute host path
	Target string `json:"target"` // absolute path in the container
	Access string `json:"access"` // of r, w and m
}

// HostName is a line of /etc/hosts. The zero Addr stands for the host itself
// (host-gateway).
type HostName struct {
	Name string     `json:"name"`
	Addr netip.Addr `json:"addr,omitzero"`
}

// DNS replaces parts of the resolver's configuration; what is empty is taken
// from the host's.
type DNS struct {
	Servers []netip.Addr `json:"servers,omitempty"`
	Search  []string     `json:"search,omitempty"`
	Options []string     `json:"options,omitempty"`
}

// File is a file with given content, read-only in the container: Compose's
// configs.
type File struct {
	Target   string  `json:"target"` // absolute
	Content  []byte  `json:"content"`
	Template bool    `json:"template,omitempty"` // Content has places for secrets: see FillTemplate
	UID      *uint32 `json:"uid,omitempty"`      // nil = 0, with Template the container's user
	GID      *uint32 `json:"gid,omitempty"`      // nil = 0, with Template the container's group
	Mode     uint32  `json:"mode"`               // permission bits, default 0444, with Template 0400
}

// CheckFileTarget says why no file of a secret or config can be mounted at an
// absolute, clean path; "" = one can.
func CheckFileTarget(target string) string {
	for _, name := range strings.Split(target, "/") {
		if len(name) > 255 {
			return "a name in it has more than 255 bytes"
		}
	}
	switch {
	case target == "/" || target == "/run" || target == SecretDir:
		return "a directory stands there"
	case strings.HasPrefix(target+"/", "/proc/") || strings.HasPrefix(target+"/", "/sys/"):
		return "the kernel's files stand there"
	case strings.HasPrefix(target+"/", OwnPrefix):
		return "names that begin with .dunnage- are dunnage's own"
	}
	return ""
}

// OwnPrefix begins the paths that dunnage mounts its own files at.
const OwnPrefix = "/.dunnage-"

// Owner is whom the file belongs to in a container that runs as uid and gid.
func (f File) Owner(uid, gid uint32) (uint32, uint32) {
	if !f.Template {
		uid, gid = 0, 0
	}
	if f.UID != nil {
		uid = *f.UID
	}
	if f.GID != nil {
		gid = *f.GID
	}
	return uid, gid
}
