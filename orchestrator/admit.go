package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"dunnage/spec"
)

const hostPlatform = "linux/" + runtime.GOARCH

// checkSources refuses a release whose bind sources or external volumes are
// missing, or that wants more of the host than the agent gives, before anything
// is touched.
func (l *Loop) checkSources(ctx context.Context, p spec.Project) error {
	var errs []error
	for _, s := range p.Services {
		if what := privilege(s.Container); what != "" && !l.cfg.AllowPrivileged {
			errs = append(errs, fmt.Errorf("service %s: %s gives it the host; start the agent with --allow-privileged if that is meant", s.Name, what))
		}
		if p := s.Container.Platform; p != "" && !strings.HasPrefix(p+"/", hostPlatform+"/") {
			errs = append(errs, fmt.Errorf("service %s: platform %s: this host is %s, and nothing is emulated", s.Name, p, hostPlatform))
		}
		for _, m := range s.Container.Mounts {
			if m.Type != spec.MountBind {
				continue
			}
			if err := checkSource(m); err != nil {
				errs = append(errs, fmt.Errorf("service %s: bind mount %s: %w", s.Name, m.Target, err))
			}
		}
	}
	for _, v := range p.Volumes {
		if !v.External {
			continue
		}
		ok, err := l.cfg.Volumes.VolumeExists(ctx, v.ID)
		switch {
		case err != nil:
			errs = append(errs, err)
		case !ok:
			errs = append(errs, fmt.Errorf("volume %s is external and there is no volume %q on this host; create it, or drop external: true", v.Name, v.ID))
		}
	}
	return refused(errs)
}

// checkSource reports whether the source of a bind mount is there or can be
// made, as far as the tree of the host tells.
func checkSource(m spec.Mount) error {
	_, err := os.Stat(m.Source)
	switch {
	case err == nil:
		return nil
	case !m.CreateHost:
		return fmt.Errorf("%w; create it, or set create_host_path: true", err)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	for path := m.Source; ; path = filepath.Dir(path) {
		if _, err := os.Lstat(path); err != nil {
			continue // missing as well: to be made
		}
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("%s is a symbolic link that leads nowhere; create what it points to, or remove it", path)
		}
		return nil
	}
}

// privilege names the key by which a container leaves its confinement for
// good, empty if there is none. What cap_add, devices and security_opt give is
// bounded, and this isn't.
func privilege(c spec.Container) string {
	switch {
	case c.Privileged:
		return "privileged: true"
	case c.HostPID:
		return "pid: host"
	case c.HostIPC:
		return "ipc: host"
	}
	return ""
}

func refused(errs []error) error {
	if len(errs) == 0 {
		return nil
	}
	return errors.Join(append(errs, spec.ErrRefused)...)
}

// The range out of which host ports are picked: below the kernel's ephemeral
// ports (32768 and up), so that no outgoing connection holds one.
const (
	firstPort = 30000
	lastPort  = 32767
)

// holder is who has a host port.
type portUse struct {
	ip    netip.Addr // zero = every address
	port  uint16
	proto spec.Protocol
}

func (a portUse) overlaps(b portUse) bool {
	return a.port == b.port && a.proto == b.proto && (!a.ip.IsValid() || !b.ip.IsValid() || a.ip == b.ip)
}

// resolvePorts fills in the host ports that the agent picks and refuses those
// that somebody else has. p is changed.
func (l *Loop) resolvePorts(ctx context.Context, p *spec.Project) error {
	others := l.portsOfOthers(p.Name)
	mine := l.portsOf(p.Name)
	var errs []error
	var used []taken
	for i := range p.Services {
		s := &p.Services[i]
		s.Ports = slices.Clone(s.Ports)
		for j := range s.Ports {
			port, err := l.resolvePort(ctx, *s, s.Ports[j], previous(mine, s.Name, j), others, used, mine)
			if err != nil {
				errs = append(errs, fmt.Errorf("service %s: %w", s.Name, err))
				continue
			}
			s.Ports[j] = port
			used = append(used, taken{portUse{port.HostIP, port.Published, port.Protocol}, s})
		}
	}
	return refused(errs)
}

// owned is a published port of a project's service.
type owned struct {
	portUse
	project, service string
	index            int
}

// taken is a host port that another service of the release has.
type taken struct {
	portUse
	by *spec.Service
}

// twice says that two services of a release, or one of them twice, have a port.
// One of them may be what a service was called before it was renamed.
func twice(use portUse, a, b spec.Service) error {
	text := fmt.Sprintf("port %d/%s: service %s publishes it too", use.port, use.proto, b.Name)
	if a.Name == b.Name {
		text = fmt.Sprintf("port %d/%s is published twice", use.port, use.proto)
	}
	for _, s := range []spec.Service{a, b} {
		if s.Orphan {
			return fmt.Errorf("%s; %s isn't in the manifest any more and keeps running: --remove-orphans removes it, and the port goes over", text, s.Name)
		}
	}
	return fmt.Errorf("%s; publish another host port", text)
}

func previous(mine []owned, service string, index int) uint16 {
	for _, o := range mine {
		if o.service == service && o.index == index {
			return o.port
		}
	}
	return 0
}

// resolvePort returns the port with one host port. One of a range, or any, is
// the one it had before if that still fits.
func (l *Loop) resolvePort(ctx context.Context, s spec.Service, p spec.Port, before uint16, others []owned, used []taken, mine []owned) (spec.Port, error) {
	first, last := p.Published, max(p.Published, p.Last)
	if first == 0 {
		first, last = firstPort, lastPort
	}
	candidates := []uint16{}
	if before >= first && before <= last {
		candidates = append(candidates, before)
	}
	for n := int(first); n <= int(last); n++ {
		candidates = append(candidates, uint16(n))
	}
	var why error
	for _, n := range candidates {
		use := portUse{p.HostIP, n, p.Protocol}
		if i := slices.IndexFunc(used, func(t taken) bool { return t.overlaps(use) }); i >= 0 {
			why = twice(use, s, *used[i].by)
			continue
		}
		if why = l.free(ctx, use, others, mine); why == nil {
			p.Published, p.Last = n, 0
			return p, nil
		}
	}
	return p, why
}

// free says who has the port, if anybody. One that this project has already is
// taken over: a process that came to listen on it since never got a packet.
func (l *Loop) free(ctx context.Context, use portUse, others, mine []owned) error {
	for _, o := range others {
		if o.overlaps(use) {
			return fmt.Errorf("port %d/%s: held by service %s of project %s; publish another host port or take that one down", use.port, use.proto, o.service, o.project)
		}
	}
	if slices.ContainsFunc(mine, func(o owned) bool { return o.overlaps(use) }) {
		return nil
	}
	who, err := l.cfg.Network.Holder(ctx, use.ip, use.port, use.proto)
	if err != nil {
		return fmt.Errorf("port %d/%s: find out who listens: %w", use.port, use.proto, err)
	}
	if who != "" {
		return fmt.Errorf("port %d/%s: held by %s; stop it or publish another host port", use.port, use.proto, who)
	}
	return nil
}

func (l *Loop) portsOf(project string) []owned {
	var out []owned
	for _, p := range l.state.desired().Projects {
		if p.Record.Name != project {
			continue
		}
		for _, s := range p.Release.Project.Services {
			for i, port := range s.Ports {
				out = append(out, owned{portUse{port.HostIP, port.Published, port.Protocol}, project, s.Name, i})
			}
		}
	}
	return out
}

func (l *Loop) portsOfOthers(project string) []owned {
	var out []owned
	for _, p := range l.state.desired().Projects {
		if p.Record.Name != project {
			out = append(out, l.portsOf(p.Record.Name)...)
		}
	}
	return out
}
