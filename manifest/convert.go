package manifest

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"dunnage/spec"

	"github.com/compose-spec/compose-go/v2/types"
)

// converter turns the merged Compose project into ours.
type converter struct {
	*loading
	in          *types.Project
	volumes     map[string]spec.Volume
	directories map[string]spec.Mount // what volumes are whose driver_opts say so
	usedVolumes map[string]bool
	usedNets    map[string]bool
	usedConfigs map[string]bool
	usedSecrets map[string]bool
	values      map[string]spec.SecretValue
	contents    map[string][]byte // of the configs that were read

	unsaidRestart []string // services without the key
}

func newConverter(l *loading, in *types.Project) *converter {
	c := &converter{loading: l, in: in, volumes: map[string]spec.Volume{}, usedVolumes: map[string]bool{}, usedNets: map[string]bool{}, usedConfigs: map[string]bool{}, usedSecrets: map[string]bool{}, values: map[string]spec.SecretValue{}, contents: map[string][]byte{}}
	c.directories = c.boundVolumes()
	for name, v := range in.Volumes {
		c.volumes[name] = spec.Volume{Name: name, ID: v.Name, External: bool(v.External)}
	}
	return c
}

// sorted are a map's keys in order.
func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// failAt reports a problem at a key.
func (c *converter) failAt(p *problem, path ...string) {
	if len(path) > 2 && c.report.below(dotted(path)) {
		return
	}
	c.fail(c.where(path...), dotted(path), p)
}

func (c *converter) project() spec.Project {
	p := spec.Project{Name: c.name, Services: []spec.Service{}}
	for _, name := range sorted(c.in.Services) {
		p.Services = append(p.Services, c.service(name, c.in.Services[name]))
	}
	c.checkProfiles(len(p.Services))
	if len(c.unsaidRestart) > 0 {
		c.report.note("%s: restarted when a replica fails, since restart isn't set; Compose would leave it dead. restart: \"no\" asks for that", strings.Join(c.unsaidRestart, ", "))
	}
	p.Networks = c.networks()
	p.Volumes = c.declaredVolumes()
	c.unusedConfigs()
	p.Secrets = c.declaredSecrets()
	c.checkVariables(p)
	c.linkAliases(p)
	c.checkPublished(p)
	c.checkInternal(p)
	c.checkDependencies(p)
	c.checkJoined(p)
	c.joinedOrders(p)
	c.checkWarm(p)
	c.checkNames(p)
	return p
}

func (c *converter) networks() []spec.Network {
	var nets []spec.Network
	for _, name := range sorted(c.in.Networks) {
		n := c.in.Networks[name]
		if !c.usedNets[name] {
			c.report.warn("network %s is used by no service, so it isn't made", name)
			continue
		}
		c.noteLabels("network "+name, len(n.Labels))
		c.driverOptions(name, n.DriverOpts)
		shared := ""
		if bool(n.External) || n.Name != spec.NetworkID(c.name, name) {
			shared = n.Name
		}
		nets = append(nets, spec.Network{Name: name, Shared: shared, Internal: n.Internal, IPv6: n.EnableIPv6 != nil && *n.EnableIPv6})
	}
	return nets
}

func (c *converter) declaredVolumes() []spec.Volume {
	var vols []spec.Volume
	for _, name := range sorted(c.volumes) {
		if !c.usedVolumes[name] {
			c.report.warn("volume %s is used by no service, so it isn't made", name)
			continue
		}
		c.noteLabels("volume "+name, len(c.in.Volumes[name].Labels))
		if _, bound := c.directories[name]; !bound {
			vols = append(vols, c.volumes[name])
		}
	}
	return vols
}

// service converts one service; what it reports makes Load fail, so that what
// it returns may then be incomplete.
func (c *converter) service(name string, in types.ServiceConfig) spec.Service {
	if len(c.name)+len(name) > maxNames {
		c.failAt(refuse("Shorten one", "the names of project and service together have %d characters, but at most %d fit into a container's ID", len(c.name)+len(name), maxNames), "services", name)
	}
	x := c.extension(name, in)
	s := spec.Service{
		Name:      name,
		Replicas:  c.replicas(name, in),
		Container: c.container(name, in),
		Ports:     c.ports(name, in.Ports),
		Limits:    c.limits(name, in),
		Logging:   c.logging(name, in.Logging),
		Restart:   c.restart(name, in),
		Unhealthy: x.unhealthy,
		Canary:    x.canary,
		Drain:     x.drain,
		Hold:      x.hold,
		KeepWarm:  x.keepWarm,
		Disk:      x.disk,
		MaxFailed: x.maxFailed,
		Allow:     x.allow,
		Sticky:    x.sticky,
		Ramp:      x.ramp,
	}
	s.OnSecretChange = c.onSecretChange(name, in, s.Container)
	s.DependsOn = joinsDependency(s.Container, dependencies(in.DependsOn))
	s.Container.Image, s.Pull, s.Build = c.image(name, in, x.build)
	s.Container.Probes = c.probes(name, c.reachable(name, in, x), x.probe, x.accept)
	s.Update, s.Rollback = c.updates(name, in, s.Container, x.deadline)
	c.checkCanary(s)
	c.noteUnused(name, in)
	if in.ContainerName != "" && s.Replicas > 1 {
		c.failAt(refuse("Remove container_name; the service's name reaches all replicas", "%d replicas can't have one name", s.Replicas), "services", name, "container_name")
	}
	return s
}

// maxNames leaves room for "-<8 digits>-<number>" in the 76 characters that a
// containerd ID may have.
const maxNames = 60

// noteUnused tells of keys that mean something to Compose only.
func (c *converter) noteUnused(name string, in types.ServiceConfig) {
	if in.Attach != nil {
		c.report.note("%s: attach has no effect: deploy attaches to no output", name)
	}
	if in.Develop != nil {
		c.report.note("%s: develop has no effect: it is for compose watch", name)
	}
	for _, on := range sorted(in.DependsOn) {
		if in.DependsOn[on].Restart && c.written("services", name, "depends_on", on, "restart") { // links have it too
			c.report.note("%s: isn't restarted when %s is replaced: its address doesn't change, but connections to it end", name, on)
		}
	}
	if in.Deploy == nil {
		return
	}
	c.noteLabels(name+": deploy", len(in.Deploy.Labels))
	for _, v := range in.Deploy.Placement.Constraints {
		if !alwaysTrue(v) {
			c.report.note("%s: runs on this host whether or not %q is true of it", name, v)
		}
	}
}

func dependencies(in types.DependsOnConfig) []spec.Dependency {
	var deps []spec.Dependency
	for _, name := range sorted(in) {
		d := in[name]
		deps = append(deps, spec.Dependency{
			Service:   name,
			Condition: spec.Condition(cmp.Or(d.Condition, string(spec.DependStarted))),
			Optional:  !d.Required,
		})
	}
	return deps
}
