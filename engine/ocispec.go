package engine

import (
	"context"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/cap"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"dunnage/spec"
)

const (
	// pidsLimit stops a fork bomb without stopping a large service: what
	// systemd gives a unit (TasksMax, 15 % of 32,768), rounded.
	pidsLimit = 4096
	// nofileLimit is what containers had under Docker's packages for ten years
	// (LimitNOFILE=infinity, which was nr_open, 1,048,576): programs that
	// don't raise their own soft limit expect it.
	nofileLimit = 1048576
	// defaultShm is Docker's size of /dev/shm in bytes.
	defaultShm = 64 << 20
)

// ociSpec is the runtime specification of a replica. No container gets more
// than Docker would give it.
func (e *Engine) ociSpec(ctx context.Context, r spec.CreateRequest, image *storedImage, root *rootView) (*specs.Spec, error) {
	ctx = namespaces.WithNamespace(ctx, e.cfg.Namespace)
	record := &containers.Container{ID: r.ID}
	s, err := oci.GenerateSpec(ctx, nil, record, oci.WithDefaultUnixDevices)
	if err != nil {
		return nil, fmt.Errorf("generate runtime specification: %w", err)
	}
	s.Root = &specs.Root{Path: "rootfs", Readonly: r.Container.ReadOnly}
	s.Hostname = r.Hostname
	s.Annotations = annotations(r.Container)
	if err := setProcess(s.Process, r, image.config, root); err != nil {
		return nil, err
	}
	if s.Mounts, err = e.mounts(r, image.config); err != nil {
		return nil, err
	}
	s.Linux.CgroupsPath = filepath.Join("/", e.cfg.Namespace, r.ID)
	if err := e.setResources(s, r.Limits); err != nil {
		return nil, err
	}
	setNamespaces(s.Linux, r)
	return s, confine(ctx, s, r.Container)
}

// annotations are for the runtime and its hooks; labels are among them, as
// under Docker.
func annotations(c spec.Container) map[string]string {
	out := maps.Clone(c.Labels)
	if out == nil {
		return c.Annotations
	}
	maps.Copy(out, c.Annotations)
	return out
}

func setProcess(p *specs.Process, r spec.CreateRequest, image ocispec.ImageConfig, root *rootView) error {
	var err error
	if p.Args, err = argv(r.Container, image); err != nil {
		return err
	}
	p.Args = throughInit(p.Args, r)
	name := r.Container.User
	if name == "" {
		name = image.User
	}
	if p.User, err = lookUpUser(root, name); err != nil {
		return err
	}
	if err := addGroups(&p.User, root, r.Container.GroupAdd); err != nil {
		return err
	}
	caps, err := capabilities(r.Container)
	if err != nil {
		return err
	}
	p.Capabilities = processCaps(caps, p.User.UID)
	env := image.Env
	if p.Terminal = r.Container.TTY; p.Terminal {
		env = slices.Concat([]string{"TERM=xterm"}, env)
	}
	p.Env = environment(r.Hostname, env, r.Container.Environment)
	p.Cwd = workingDir(r.Container, image)
	p.Rlimits = rlimits(r.Container.Ulimits)
	// Set, because the shim's own value, which protects the shim, would be
	// inherited.
	score := r.Container.OOMScoreAdj
	p.OOMScoreAdj = &score
	return nil
}

// processCaps gives root its capabilities at once, and another user none until
// it executes something that may have them, as execve itself would.
// Inheritable stays empty (CVE-2022-24769).
func processCaps(caps []string, uid uint32) *specs.LinuxCapabilities {
	c := &specs.LinuxCapabilities{Bounding: caps}
	if uid == 0 {
		c.Effective, c.Permitted = caps, caps
	}
	return c
}

func rlimits(limits []spec.Ulimit) []specs.POSIXRlimit {
	nofile := defaultNofile()
	out := []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: nofile, Hard: nofile}}
	for _, l := range limits {
		limit := specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(l.Name), Soft: rlimit(l.Soft), Hard: rlimit(l.Hard)}
		out = slices.DeleteFunc(out, func(o specs.POSIXRlimit) bool { return o.Type == limit.Type })
		out = append(out, limit)
	}
	return out
}

// defaultNofile is as much of nofileLimit as this host lets a container have.
func defaultNofile() uint64 {
	nofile := uint64(nofileLimit)
	if most, ok := readUint("/proc/sys/fs/nr_open"); ok {
		nofile = min(nofile, most) // the kernel refuses more to everybody
	}
	held, err := cap.Current()
	if err != nil || slices.Contains(held, "CAP_SYS_RESOURCE") {
		return nofile
	}
	// On a host that is a container itself, nobody can raise a hard limit.
	var own unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &own); err == nil {
		nofile = min(nofile, own.Max)
	}
	return nofile
}

func rlimit(v int64) uint64 {
	if v < 0 {
		return math.MaxUint64
	}
	return uint64(v)
}

func readUint(path string) (uint64, bool) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	return n, err == nil
}

// setNamespaces joins the replica's network namespace and gives it a cgroup
// namespace, so that the host's groups don't show. The two sysctls let an
// unprivileged user bind low ports and ping, as under Docker since 20.10; who
// has somebody else's network leaves its settings alone.
func setNamespaces(l *specs.Linux, r spec.CreateRequest) {
	for i := range l.Namespaces {
		if l.Namespaces[i].Type == specs.NetworkNamespace {
			l.Namespaces[i].Path = r.NetNS
		}
	}
	l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	if r.Container.Network == spec.NetworkHost || r.Container.Network == spec.NetworkService {
		return
	}
	l.Sysctl = map[string]string{
		"net.ipv4.ip_unprivileged_port_start": "0",
		"net.ipv4.ping_group_range":           "0 2147483647",
	}
}
