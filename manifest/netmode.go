package manifest

import (
	"slices"
	"strings"

	"dunnage/spec"

	"github.com/compose-spec/compose-go/v2/types"
)

var kindNetworkMode = kind{shape: shapeText, check: checkNetworkMode}

func checkNetworkMode(v string) error {
	kind, name, _ := strings.Cut(v, ":")
	switch {
	case slices.Contains([]string{"", "bridge", "default", "host", "none"}, v):
		return nil
	case (kind == "service" || kind == "container") && name != "":
		return nil
	}
	return refuse("Write bridge, host, none or service:NAME, or use networks", "%q isn't a network mode", clip(v))
}

// networkMode fills in which network namespace a container runs in.
func (c *converter) networkMode(name string, in types.ServiceConfig, box *spec.Container) {
	mode, other, _ := strings.Cut(in.NetworkMode, ":")
	switch mode {
	case "host":
		box.Network = spec.NetworkHost
	case "none":
		box.Network = spec.NetworkNone
	case "service", "container":
		box.Network = spec.NetworkService
		box.Joins = c.joined(name, mode, other)
	}
	path := []string{"services", name, "network_mode"}
	switch {
	case in.NetworkMode != "" && len(in.Networks) > 0:
		c.failAt(refuse("Remove one of them", "network_mode and networks exclude each other"), path...)
	case box.Network == spec.NetworkHost && len(in.Ports) > 0:
		c.failAt(refuse("Remove it; the process listens on the host's ports itself", "with network_mode: host nothing can be published"), "services", name, "ports")
	case box.Network == spec.NetworkNone && len(in.Ports) > 0:
		c.failAt(refuse("Remove it", "with network_mode: none nothing can be published"), "services", name, "ports")
	case box.Network == spec.NetworkService && len(in.Ports) > 0:
		c.failAt(refuse("Move it to service "+box.Joins, "the network belongs to another service, so its ports are published there"), "services", name, "ports")
	}
	if box.Network == spec.NetworkService {
		c.checkResolution(name, in, box.Joins)
	}
}

// checkResolution refuses what stands in files that belong to the network.
func (c *converter) checkResolution(name string, in types.ServiceConfig, owner string) {
	for key, n := range map[string]int{
		"dns": len(in.DNS), "dns_search": len(in.DNSSearch), "dns_opt": len(in.DNSOpts), "extra_hosts": len(in.ExtraHosts),
	} {
		if n > 0 {
			c.failAt(refuse("Move it to service "+owner, "the network belongs to another service, and its /etc/hosts and /etc/resolv.conf with it"), "services", name, key)
		}
	}
}

// defaultNetwork is what Docker's default bridge becomes.
func (c *converter) defaultNetwork() spec.Attachment {
	const name = "default"
	if _, ok := c.in.Networks[name]; !ok {
		if c.in.Networks == nil {
			c.in.Networks = types.Networks{}
		}
		c.in.Networks[name] = types.NetworkConfig{}
	}
	c.usedNets[name] = true
	return spec.Attachment{Name: name}
}

// reachable is the service without the ports that the host's probes can't
// reach: they have no way to a container with nothing but the loopback.
func (c *converter) reachable(name string, in types.ServiceConfig, x extension) types.ServiceConfig {
	if in.NetworkMode != string(spec.NetworkNone) {
		return in
	}
	if x.probe != nil {
		c.failAt(refuse("Use healthcheck, which runs in the container", "with network_mode: none the host can't reach the container"), "services", name, "x-dunnage", "probe")
	}
	in.Ports, in.Expose = nil, nil
	return in
}

// joined is the service that network_mode names.
func (c *converter) joined(name, mode, other string) string {
	service := other
	if mode == "container" {
		service = c.named(other)
	}
	path := []string{"services", name, "network_mode"}
	to, ok := c.in.Services[service]
	joins, _, _ := strings.Cut(to.NetworkMode, ":")
	var p *problem
	switch {
	case service == name:
		p = refuse("Name another service", "the service can't join itself")
	case !ok && mode == "container":
		p = refuse("Use network_mode: service:NAME", "no service has the container_name %q", other)
	case !ok:
		p = c.unknownService(other)
	case joins == "service" || joins == "container":
		p = refuse("Name that service instead", "service %s joins the network of another one itself", service)
	default:
		return service
	}
	c.failAt(p, path...)
	delete(c.in.Services[name].DependsOn, other) // which compose-go made of network_mode
	return ""
}

// named is the service with the container name; empty if there is none.
func (c *converter) named(container string) string {
	for _, name := range sorted(c.in.Services) {
		if c.in.Services[name].ContainerName == container {
			return name
		}
	}
	return ""
}

// joinsDependency makes a service wait for the one whose network it joins, as
// Compose does for service:NAME.
func joinsDependency(box spec.Container, in []spec.Dependency) []spec.Dependency {
	known := func(d spec.Dependency) bool { return d.Service == box.Joins }
	if box.Joins == "" || slices.ContainsFunc(in, known) {
		return in
	}
	in = append(in, spec.Dependency{Service: box.Joins, Condition: spec.DependStarted})
	slices.SortFunc(in, func(a, b spec.Dependency) int { return strings.Compare(a.Service, b.Service) })
	return in
}

// checkJoined refuses replicas without a partner to join.
func (c *converter) checkJoined(p spec.Project) {
	for _, s := range p.Services {
		to, ok := p.Service(s.Container.Joins)
		if s.Container.Network == spec.NetworkService && ok && s.Replicas > to.Replicas {
			c.failAt(refuse("Give it at most as many replicas", "%d replicas can't join the %d of service %s", s.Replicas, to.Replicas, to.Name), "services", s.Name, "network_mode")
		}
	}
}

func encodeNetworkMode(box spec.Container) string {
	if box.Network == spec.NetworkService {
		return "service:" + box.Joins
	}
	return string(box.Network)
}
