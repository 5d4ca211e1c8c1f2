package engine

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/pkg/apparmor"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/moby/profiles/seccomp"
	"github.com/moby/sys/user"
	"github.com/opencontainers/runtime-spec/specs-go"

	"dunnage/spec"
)

// unconfined switches a profile off.
const unconfined = "unconfined"

// confine sets what the container may do beyond its own namespaces. It comes
// last, because it changes what the others have set: the default seccomp
// profile depends on the capabilities, and privileged takes limits off.
func confine(ctx context.Context, s *specs.Spec, c spec.Container) error {
	s.Process.NoNewPrivileges = !c.NewPrivs
	if err := addDevices(ctx, s, c); err != nil {
		return err
	}
	setSysctls(s, c)
	shareNamespaces(s, c)
	if c.Privileged {
		return unlock(ctx, s)
	}
	var err error
	if s.Linux.Seccomp, err = seccompProfile(s, c.Seccomp); err != nil {
		return err
	}
	s.Process.ApparmorProfile, err = apparmorFor(c.AppArmor)
	return err
}

func seccompProfile(s *specs.Spec, profile string) (*specs.LinuxSeccomp, error) {
	switch profile {
	case unconfined:
		return nil, nil
	case "":
		p, err := seccomp.GetDefaultProfile(s)
		if err != nil {
			return nil, fmt.Errorf("make seccomp profile: %w", err)
		}
		// No distribution's kernel runs x32 programs unless it is told to at
		// boot, and the runtime compiles the filter for it at every start: 8 of
		// the 50 ms that runc takes.
		p.Architectures = slices.DeleteFunc(p.Architectures, func(a specs.Arch) bool { return a == specs.ArchX32 })
		return p, nil
	}
	p, err := seccomp.LoadProfile(profile, s)
	if err != nil {
		return nil, fmt.Errorf("security_opt: seccomp profile: %w: %w", err, spec.ErrRefused)
	}
	return p, nil
}

// apparmorFor is the profile that a process runs under.
func apparmorFor(name string) (string, error) {
	switch {
	case apparmor.HostSupports():
		if name == "" {
			name = apparmorProfile
		}
		return name, nil
	case name != "" && name != unconfined:
		return "", fmt.Errorf("security_opt: apparmor:%s: this host has no AppArmor: remove it, or load AppArmor: %w", name, spec.ErrRefused)
	}
	return "", nil
}

func addDevices(ctx context.Context, s *specs.Spec, c spec.Container) error {
	for _, d := range c.Devices {
		if err := oci.WithDevices(d.Source, d.Target, d.Access)(ctx, nil, nil, s); err != nil {
			return fmt.Errorf("device %s: %w: %w", d.Source, err, spec.ErrRefused)
		}
	}
	for _, text := range c.DeviceRules {
		rule, err := parseDeviceRule(text)
		if err != nil {
			return err
		}
		s.Linux.Resources.Devices = append(s.Linux.Resources.Devices, rule)
	}
	return nil
}

// parseDeviceRule reads "c 1:3 rwm"; * is any number.
func parseDeviceRule(text string) (specs.LinuxDeviceCgroup, error) {
	r := specs.LinuxDeviceCgroup{Allow: true}
	bad := fmt.Errorf("device_cgroup_rules: %q isn't TYPE MAJOR:MINOR PERMISSIONS: %w", text, spec.ErrRefused)
	fields := strings.Fields(text)
	if len(fields) != 3 {
		return r, bad
	}
	r.Type, r.Access = fields[0], fields[2]
	major, minor, ok := strings.Cut(fields[1], ":")
	for _, n := range []struct {
		text string
		to   **int64
	}{{major, &r.Major}, {minor, &r.Minor}} {
		if n.text == "*" {
			continue // nil is any
		}
		v, err := strconv.ParseInt(n.text, 10, 64)
		if err != nil || !ok {
			return r, bad
		}
		*n.to = &v
	}
	return r, nil
}

// setSysctls adds to the defaults. The domain name is one, because the
// runtime's own field for it is younger than the runtimes in use.
func setSysctls(s *specs.Spec, c spec.Container) {
	if s.Linux.Sysctl == nil {
		s.Linux.Sysctl = map[string]string{}
	}
	maps.Copy(s.Linux.Sysctl, c.Sysctls)
	if c.DomainName != "" {
		s.Linux.Sysctl["kernel.domainname"] = c.DomainName
	}
}

// shareNamespaces leaves out the namespaces that are the host's.
func shareNamespaces(s *specs.Spec, c spec.Container) {
	shared := map[specs.LinuxNamespaceType]bool{specs.PIDNamespace: c.HostPID, specs.IPCNamespace: c.HostIPC}
	s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return shared[n.Type] })
	if !c.HostIPC {
		return
	}
	for i, m := range s.Mounts { // the objects stand there
		if m.Destination == "/dev/shm" && m.Type == "tmpfs" || m.Destination == "/dev/mqueue" && m.Type == "mqueue" {
			s.Mounts[i] = specs.Mount{Destination: m.Destination, Type: "bind", Source: m.Destination, Options: []string{"rbind", "rw", "nosuid", "noexec", "nodev"}}
		}
	}
}

// unlock makes a container privileged, as Docker does: every capability and
// device, /proc, /sys and the cgroups as on the host, no profiles. What
// remains is its namespaces, and no-new-privileges unless that is off too.
func unlock(ctx context.Context, s *specs.Spec) error {
	uid := s.Process.User.UID
	for _, opt := range []oci.SpecOpts{oci.WithPrivileged, oci.WithHostDevices, oci.WithAllDevicesAllowed} {
		if err := opt(ctx, nil, nil, s); err != nil {
			return fmt.Errorf("make it privileged: %w", err)
		}
	}
	s.Process.Capabilities = processCaps(s.Process.Capabilities.Bounding, uid)
	return nil
}

// addGroups adds group_add to the groups that the user has in the image.
func addGroups(u *specs.User, root *rootView, names []string) error {
	if len(names) == 0 {
		return nil
	}
	file, err := root.file("/etc/group")
	if err != nil {
		return fmt.Errorf("read the image's /etc/group: %w", err)
	}
	defer file.Close()
	gids, err := user.GetAdditionalGroups(names, file)
	if err != nil {
		return fmt.Errorf("group_add: %w: use numbers, or groups of the image: %w", err, spec.ErrRefused)
	}
	for _, g := range gids {
		if !slices.Contains(u.AdditionalGids, uint32(g)) {
			u.AdditionalGids = append(u.AdditionalGids, uint32(g))
		}
	}
	return nil
}
