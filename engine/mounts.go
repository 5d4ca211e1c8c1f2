package engine

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"

	"dunnage/spec"
)

// systemMounts are Docker's. containerd's own defaults would hide what the
// image has in /run under a tmpfs.
func systemMounts(shm int64) []specs.Mount {
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid", "noexec", "nodev"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=" + strconv.FormatInt(cmp.Or(shm, defaultShm), 10)}},
	}
}

// mounts lists everything that is mounted into a replica, parents before what
// lies below them. What the manifest mounts replaces ours at the same place.
func (e *Engine) mounts(r spec.CreateRequest, image ocispec.ImageConfig) ([]specs.Mount, error) {
	var own []specs.Mount
	for _, m := range allMounts(r.Container.Mounts, image) {
		o, err := e.mount(r.ID, m)
		if err != nil {
			return nil, err
		}
		own = append(own, o)
	}
	own = append(own, e.contentMounts(r)...)
	secrets, err := secretMounts(r)
	if err != nil {
		return nil, err
	}
	out := slices.Concat(systemMounts(r.Container.ShmSize), fileMounts(r.Files), e.initMount(r))
	out = append(without(out, own), own...)
	// The last of those as deep: /var/run may be a symlink to /run.
	out = append(without(out, secrets), secrets...)
	slices.SortStableFunc(out, func(a, b specs.Mount) int {
		return cmp.Compare(strings.Count(a.Destination, "/"), strings.Count(b.Destination, "/"))
	})
	return out, nil
}

// without leaves out the mounts that others replace.
func without(mounts, others []specs.Mount) []specs.Mount {
	return slices.DeleteFunc(mounts, func(m specs.Mount) bool {
		return slices.ContainsFunc(others, func(o specs.Mount) bool { return o.Destination == m.Destination })
	})
}

// allMounts adds an anonymous volume for every VOLUME of the image that the
// manifest doesn't mount something at. Targets are cleaned.
func allMounts(manifest []spec.Mount, image ocispec.ImageConfig) []spec.Mount {
	out := slices.Clone(manifest)
	for i := range out {
		out[i].Target = path.Clean(out[i].Target)
	}
	for target := range image.Volumes {
		target = path.Join("/", target)
		if !slices.ContainsFunc(out, func(m spec.Mount) bool { return m.Target == target }) {
			out = append(out, spec.Mount{Type: spec.MountVolume, Target: target})
		}
	}
	slices.SortStableFunc(out, func(a, b spec.Mount) int { return cmp.Compare(a.Target, b.Target) })
	return out
}

// fileMounts are the host files of the network. They are writable, because
// entrypoints that append to /etc/hosts exist; what they write lasts until the
// names change.
func fileMounts(f spec.HostFiles) []specs.Mount {
	var out []specs.Mount
	for _, m := range []struct{ target, source string }{
		{"/etc/hosts", f.Hosts}, {"/etc/resolv.conf", f.ResolvConf}, {"/etc/hostname", f.Hostname},
	} {
		if m.source != "" {
			out = append(out, specs.Mount{Destination: m.target, Type: "bind", Source: m.source, Options: []string{"rbind", "rprivate", "rw", "nosuid", "nodev", "noexec"}})
		}
	}
	return out
}

// initTarget is where dunnage-init stands in a container: in the root
// directory, where no mount of the manifest's can hide it.
const initTarget = "/.dunnage-init"

// initMount brings dunnage-init into the containers that use it.
func (e *Engine) initMount(r spec.CreateRequest) []specs.Mount {
	c := r.Container
	uses := c.Init || holdsInput(c) || r.Secrets.Env != "" || slices.ContainsFunc(c.Probes, func(p spec.Probe) bool {
		return p.Kind == spec.ProbeExec || p.Kind == spec.ProbeAccept
	})
	if !uses {
		return nil
	}
	return []specs.Mount{{Destination: initTarget, Type: "bind", Source: e.cfg.InitBinary, Options: []string{"bind", "rprivate", "ro", "nosuid", "nodev"}}}
}

func (e *Engine) mount(replica string, m spec.Mount) (specs.Mount, error) {
	if !path.IsAbs(m.Target) || m.Target == "/" {
		return specs.Mount{}, fmt.Errorf("mount target %q: must be an absolute path below /: %w", m.Target, spec.ErrRefused)
	}
	if m.Type == spec.MountTmpfs {
		return tmpfs(m), nil
	}
	source := m.Source
	if m.Type == spec.MountVolume {
		var err error
		if source, err = e.volumePath(replica, m); err != nil {
			return specs.Mount{}, err
		}
	}
	return specs.Mount{Destination: m.Target, Type: "bind", Source: source, Options: bindOptions(m)}, nil
}

func bindOptions(m spec.Mount) []string {
	options := []string{"rbind", "rw"}
	if m.ReadOnly {
		options = []string{"rbind", "ro"}
	}
	propagation := func(o string) bool {
		return slices.Contains([]string{"shared", "rshared", "slave", "rslave", "private", "rprivate"}, o)
	}
	if !slices.ContainsFunc(m.Options, propagation) {
		options = append(options, "rprivate")
	}
	return append(options, m.Options...)
}

// tmpfs has Docker's restrictions; an option like "exec" lifts one.
func tmpfs(m spec.Mount) specs.Mount {
	options := []string{"nosuid", "nodev", "noexec", fmt.Sprintf("mode=%04o", cmp.Or(m.Mode, 0o1777))}
	if m.Size > 0 {
		options = append(options, "size="+strconv.FormatInt(m.Size, 10))
	}
	if m.ReadOnly {
		options = append(options, "ro")
	}
	return specs.Mount{Destination: m.Target, Type: "tmpfs", Source: "tmpfs", Options: append(options, m.Options...)}
}

// checkBind makes sure that the source of a bind mount is there, making a
// directory where Compose's short form asks for it.
func checkBind(m spec.Mount) error {
	_, err := os.Stat(m.Source)
	switch {
	case err == nil:
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("bind mount at %s: look at its source: %w", m.Target, err)
	case !m.CreateHost:
		return fmt.Errorf("bind mount at %s: %s does not exist on this host: create it, or set bind.create_host_path: %w", m.Target, m.Source, spec.ErrRefused)
	}
	if err := os.MkdirAll(m.Source, 0o755); err != nil {
		return fmt.Errorf("bind mount at %s: make its source: %w", m.Target, err)
	}
	return nil
}
