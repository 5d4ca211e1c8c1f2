package spec

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// Bounds of what an agent takes, whoever sends it. The manifest's own checks
// are stricter and know positions; these keep a client of another kind or
// version from storing what can't be run or taken down.
const (
	MaxNames    = 60   // characters of project and service name together: they and a suffix must fit into the 76 of a containerd ID
	MaxReplicas = 1000 // of a service
	MaxPorts    = 4096 // of a project
)

var (
	// idPart is what containerd takes as a part of an ID.
	idPart       = regexp.MustCompile(`^[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*$`)
	fileNameText = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)
)

// validFileName reports whether a name can't lead out of a directory and is one
// that file systems take. The length is apart: a count in the expression makes
// it a hundred kilobytes.
func validFileName(name string) bool { return len(name) <= 255 && fileNameText.MatchString(name) }

// maxErrors is how many problems are told at once.
const maxErrors = 10

// Validate returns everything that makes the project impossible to run. The
// error wraps ErrRefused.
func (p Project) Validate() error {
	v := &validation{}
	v.check(idPart.MatchString(p.Name) && len(p.Name) < MaxNames, "project name %.80q: use letters, digits and single -, _ or . between them", p.Name)
	v.check(len(p.Services) > 0, "the project has no service")
	ports := 0
	for i, s := range p.Services {
		v.check(i == 0 || p.Services[i-1].Name < s.Name, "service %.80q: services must be sorted and their names differ", s.Name)
		v.service(p, s)
		ports += len(s.Ports)
	}
	v.check(ports <= MaxPorts, "the project publishes %d ports, at most %d are possible", ports, MaxPorts)
	for _, n := range p.Networks {
		v.check(validFileName(n.Name) && (n.Shared == "" || validFileName(n.Shared)), "network name %.80q", n.Name+n.Shared)
	}
	for _, vol := range p.Volumes {
		v.check(validFileName(vol.ID), "volume name %.80q", vol.ID)
	}
	for i, d := range p.Secrets {
		v.check(i == 0 || p.Secrets[i-1].Name < d.Name, "secret %.80q: secrets must be sorted and their names differ", d.Name)
		v.declaration(d)
	}
	v.check(!cyclic(p), "services depend on each other in a circle")
	if len(v.errs) == 0 {
		return nil
	}
	return errors.Join(append(v.errs, ErrRefused)...)
}

// validation collects what is wrong.
type validation struct{ errs []error }

func (v *validation) check(ok bool, format string, args ...any) {
	if !ok && len(v.errs) < maxErrors {
		v.errs = append(v.errs, fmt.Errorf(format, args...))
	}
}

func (v *validation) service(p Project, s Service) {
	if !idPart.MatchString(s.Name) || len(p.Name)+len(s.Name) > MaxNames {
		v.check(false, "service name %.80q: use letters, digits and single -, _ or . between them, at most %d together with the project's name", s.Name, MaxNames)
		return
	}
	in := func(format string, args ...any) string {
		return "service " + s.Name + ": " + fmt.Sprintf(format, args...)
	}
	v.check(s.Replicas >= 0 && s.Replicas <= MaxReplicas, "%s", in("%d replicas: 0 to %d are possible", s.Replicas, MaxReplicas))
	v.update(s.Update, in)
	if s.Rollback != nil {
		v.update(*s.Rollback, in)
	}
	if c := s.Canary; c != nil {
		v.check(c.Replicas > 0 && c.For >= 0 && c.Weight >= 0 && c.Weight < 100, "%s", in("canary: needs replicas above 0, a time of 0 or more and a weight below 100"))
	}
	v.check(slices.Contains([]OnUnhealthy{UnhealthyReplace, UnhealthyRestart, UnhealthyKeep}, s.Unhealthy), "%s", in("on_unhealthy %.40q", s.Unhealthy))
	v.check(slices.Contains([]PullPolicy{PullMissing, PullAlways, PullNever}, s.Pull), "%s", in("pull policy %.40q", s.Pull))
	v.check(slices.Contains([]RestartMode{RestartNo, RestartOnFailure, RestartAlways, RestartUnlessStopped}, s.Restart.Mode), "%s", in("restart %.40q", s.Restart.Mode))
	v.check(s.Hold >= 0 && s.Hold <= MaxHold, "%s", in("hold %s: 0s to %s are possible", s.Hold, MaxHold))
	v.check(s.KeepWarm >= 0 && s.KeepWarm <= MaxKeepWarm, "%s", in("keep_warm %s: 0s to %s are possible", s.KeepWarm, MaxKeepWarm))
	v.check(s.Disk == 0 || s.Disk >= SmallestDisk, "%s", in("disk %d: %d bytes or more are possible", s.Disk, SmallestDisk))
	v.check(s.Drain >= 0 && s.Ramp >= 0 && s.Container.StopGrace >= 0 && s.Restart.Delay >= 0 && s.Restart.Window >= 0, "%s", in("a time is negative"))
	v.container(p, s.Container, in)
	v.secrets(p, s, in)
	v.network(p, s, in)
	for _, port := range s.Ports {
		v.check(port.Target > 0 && (port.Protocol == TCP || port.Protocol == UDP) && (port.Last == 0 || port.Last >= port.Published), "%s", in("port %d:%d/%.20s can't be published", port.Published, port.Target, port.Protocol))
	}
	for _, d := range s.DependsOn {
		_, ok := p.Service(d.Service)
		v.check(ok || d.Optional, "%s", in("depends on %.80q, which the project doesn't have", d.Service))
	}
}

func (v *validation) update(u UpdatePolicy, in func(string, ...any) string) {
	v.check(slices.Contains([]UpdateOrder{StartFirst, StopFirst}, u.Order), "%s", in("order %.40q", u.Order))
	v.check(slices.Contains([]FailureAction{FailureRollback, FailurePause, FailureContinue}, u.OnFailure), "%s", in("failure action %.40q", u.OnFailure))
	v.check(u.Parallelism >= 0 && u.MaxFailureRatio >= 0 && u.MaxFailureRatio <= 1, "%s", in("parallelism %d, max failure ratio %g", u.Parallelism, u.MaxFailureRatio))
	v.check(u.Delay >= 0 && u.Monitor >= 0 && u.Deadline >= 0, "%s", in("a time is negative"))
}

func (v *validation) container(p Project, c Container, in func(string, ...any) string) {
	v.check(c.Image != "", "%s", in("no image"))
	for _, a := range c.Networks {
		_, ok := p.Network(a.Name)
		v.check(ok, "%s", in("network %.80q isn't one of the project's", a.Name))
	}
	for _, list := range [][]string{c.Entrypoint, c.Command, c.Environment, {c.Hostname, c.User, c.WorkingDir, c.ContainerName}} {
		v.check(!slices.ContainsFunc(list, func(s string) bool { return strings.ContainsRune(s, 0) }), "%s", in("a NUL byte can't be passed to a process"))
	}
	for _, e := range c.Environment {
		key, _, ok := strings.Cut(e, "=")
		v.check(ok && key != "", "%s", in("environment %.40q: needs a name and =", e))
	}
	for _, m := range c.Mounts {
		v.check(path.IsAbs(m.Target) && (m.Type != MountBind || path.IsAbs(m.Source)), "%s", in("mount at %.80q: paths must be absolute", m.Target))
		v.check(slices.Contains([]MountType{MountBind, MountVolume, MountTmpfs}, m.Type), "%s", in("mount type %.40q", m.Type))
		v.check(m.Type != MountVolume || m.Source == "" || validFileName(m.Source), "%s", in("volume %.80q", m.Source))
	}
	v.check(len(c.Probes) > 0, "%s", in("no probe"))
	for _, probe := range c.Probes {
		v.check(probe.valid(), "%s", in("probe %.40q lacks something", probe.Kind))
	}
}

func (v *validation) declaration(d SecretDeclaration) {
	v.check(CheckSecretName(d.Name) == nil && CheckSecretName(d.Store) == nil, "secret name %.80q, in the store %.80q: use letters, digits, - _ and .", d.Name, d.Store)
	v.check(slices.Contains([]SecretOrigin{OriginSet, OriginManifest}, d.Origin), "secret %.80s: origin %.40q", d.Name, d.Origin)
	v.check(d.Origin != OriginManifest || d.Store == d.Name && !d.Optional, "secret %.80s: the manifest brings it, so it has no other name and isn't optional", d.Name)
}

// signalName is a signal as OnSecretChange has it.
var signalName = regexp.MustCompile(`^SIG[A-Z][A-Z0-9]{1,9}([+-][0-9]{1,2})?$`)

func (v *validation) secrets(p Project, s Service, in func(string, ...any) string) {
	c := s.Container
	vars := map[string]bool{}
	for _, e := range c.Environment {
		name, _, _ := strings.Cut(e, "=")
		vars[name] = true
	}
	for _, x := range c.Secrets {
		d, ok := p.Secret(x.Name)
		v.check(!d.Optional || x.Target == "" || InSecretDir(x.Target), "%s", in("secret %.80s: it may be absent, so that it can't be mounted at %.80s; only files below %s can be left out", x.Name, x.Target, SecretDir))
		v.check(ok, "%s", in("the secret %.80q isn't declared in the project", x.Name))
		v.check(x.Mode <= 0o777, "%s", in("secret %.80s: mode %#o has more than permission bits", x.Name, x.Mode))
		if x.Target != "" {
			v.check(path.IsAbs(x.Target) && path.Clean(x.Target) == x.Target && !strings.ContainsRune(x.Target, 0), "%s", in("secret %.80s: the target %.80q isn't an absolute path of a file", x.Name, x.Target))
			why := CheckFileTarget(x.Target)
			v.check(why == "", "%s", in("secret %.80s: nothing can be mounted at %.80q: %s", x.Name, x.Target, why))
		}
		if x.Env != "" {
			v.check(CheckVariable(x.Env) == nil, "%s", in("secret %.80s: %.80q can't be a variable's name", x.Name, x.Env))
			v.check(!vars[x.Env], "%s", in("secret %.80s: the variable %.80s has a value already", x.Name, x.Env))
			vars[x.Env] = true
		}
	}
	v.files(c, in)
	v.check(!s.OnSecretChange.Live() || s.OnSecretChange == SecretNone || signalName.MatchString(string(s.OnSecretChange)), "%s", in("on_secret_change %.40q", s.OnSecretChange))
	if fixed := c.Fixed(); fixed != "" {
		v.check(!s.OnSecretChange.Live(), "%s", in("on_secret_change must be restart: %s", fixed))
	}
}

// files checks what stands as a file of dunnage's in the container.
func (v *validation) files(c Container, in func(string, ...any) string) {
	for _, pair := range c.Crossings() {
		v.check(false, "%s", in("something stands at %.80s already, so that nothing can at %.80s", pair[0], pair[1]))
	}
	names := c.SecretNames()
	for _, f := range c.Files {
		v.check(path.IsAbs(f.Target) && path.Clean(f.Target) == f.Target, "%s", in("config at %.80q: the target must be the absolute path of a file", f.Target))
		why := CheckFileTarget(f.Target)
		v.check(why == "", "%s", in("config at %.80q: nothing can be mounted there: %s", f.Target, why))
		if !f.Template {
			continue
		}
		for _, name := range TemplateNames(f.Content) {
			v.check(slices.Contains(names, name), "%s", in("config at %.80s: the secret %.80q isn't one of the service's", f.Target, name))
		}
	}
}

// network checks that only who has a network of its own has addresses and ports,
// and that nobody joins who has none to share.
func (v *validation) network(p Project, s Service, in func(string, ...any) string) {
	c := s.Container
	v.check(slices.Contains([]NetworkMode{NetworkOwn, NetworkHost, NetworkNone, NetworkService}, c.Network), "%s", in("network mode %.40q", c.Network))
	if c.Network == NetworkOwn {
		v.check(len(c.Networks) > 0, "%s", in("no network"))
	} else {
		v.check(len(c.Networks) == 0 && len(s.Ports) == 0, "%s", in("with network_mode %s it has no networks and publishes nothing", c.Network))
	}
	if c.Network != NetworkService {
		v.check(c.Joins == "", "%s", in("joins %.80q without network_mode service", c.Joins))
		return
	}
	to, ok := p.Service(c.Joins)
	v.check(ok, "%s", in("joins the network of %.80q, which the project doesn't have", c.Joins))
	v.check(!ok || to.Container.Network != NetworkService, "%s", in("joins the network of %s, which joins another one's itself", to.Name))
	v.check(!ok || s.Replicas <= to.Replicas, "%s", in("%d replicas can't join the %d of service %s; scale both", s.Replicas, to.Replicas, to.Name))
}

func (p Probe) valid() bool {
	if p.Timeout < 0 || p.Interval < 0 || p.Retries < 0 || p.StartPeriod < 0 || p.StartInterval < 0 {
		return false
	}
	positive := p.Timeout > 0 && p.Interval > 0 && p.Retries > 0
	switch p.Kind {
	case ProbeImage:
		return true
	case ProbeAccept:
		return p.Timeout > 0 && len(p.Command) > 0
	case ProbeExec:
		return positive && len(p.Command) > 0
	case ProbeTCP:
		return positive && p.Port > 0
	case ProbeHTTP:
		return positive && p.Port > 0 && strings.HasPrefix(p.Path, "/")
	default:
		return p.Kind == ProbeRunning
	}
}

// cyclic reports whether some service depends on itself, over others or not.
func cyclic(p Project) bool {
	const visiting, done = 1, 2
	state := map[string]int{}
	var visit func(name string) bool
	visit = func(name string) bool {
		if state[name] != 0 {
			return state[name] == visiting
		}
		state[name] = visiting
		if s, ok := p.Service(name); ok {
			for _, d := range s.DependsOn {
				if visit(d.Service) {
					return true
				}
			}
		}
		state[name] = done
		return false
	}
	return slices.ContainsFunc(p.Services, func(s Service) bool { return visit(s.Name) })
}
