package manifest

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"dunnage/spec"

	"github.com/compose-spec/compose-go/v2/types"
)

// ports converts the published ports of a service, sorted by target.
func (c *converter) ports(name string, in []types.ServicePortConfig) []spec.Port {
	var out []spec.Port
	for _, v := range in {
		p := spec.Port{Target: uint16(v.Target)}
		p.Protocol, _ = parseProtocol(v.Protocol) // checked by the walk, as is the rest
		if v.HostIP != "" {
			p.HostIP, _ = parseIP(v.HostIP)
		}
		if v.Published != "" && v.Published != "0" {
			r, _ := parsePortRange(hostPort, v.Published)
			p.Published = r.first
			if r.size() > 1 {
				p.Last = r.last
			}
		}
		out = append(out, p)
	}
	slices.SortFunc(out, comparePorts)
	return slices.Compact(out)
}

func comparePorts(a, b spec.Port) int {
	return cmp.Or(
		cmp.Compare(a.Target, b.Target), cmp.Compare(a.Protocol, b.Protocol),
		a.HostIP.Compare(b.HostIP), cmp.Compare(a.Published, b.Published), cmp.Compare(a.Last, b.Last),
	)
}

// whereFor finds the item of ports that publishes p.
func (c *converter) whereFor(service string, p spec.Port) (place, string) {
	return c.whereItem(func(v string, t *tree) bool {
		if e := t.get("target"); e != nil {
			pub := t.get("published")
			return c.text(e.val) == fmt.Sprint(p.Target) && pub != nil && strings.HasPrefix(c.text(pub.val), fmt.Sprint(p.Published))
		}
		ports, _ := parsePortItem(v)
		return slices.Contains(ports, p)
	}, "services", service, "ports")
}

// checkPublished refuses two publications that want the same host port.
func (c *converter) checkPublished(p spec.Project) {
	type taken struct {
		service string
		port    spec.Port
	}
	seen := map[string][]taken{} // by port and protocol, so that many ports stay cheap
	for _, s := range p.Services {
		for _, port := range s.Ports {
			slot := fmt.Sprintf("%d/%s", port.Published, port.Protocol)
			for _, t := range seen[slot] {
				if overlaps(t.port, port) {
					at, path := c.whereFor(s.Name, port)
					c.fail(at, path, refuse("Publish one of them on another port or address", "host port %s is published already, by service %s as %s", describePort(port), t.service, describePort(t.port)))
					break
				}
			}
			seen[slot] = append(seen[slot], taken{s.Name, port})
		}
	}
}

func describePort(p spec.Port) string {
	if !p.HostIP.IsValid() {
		return fmt.Sprintf("%d/%s", p.Published, p.Protocol)
	}
	return fmt.Sprintf("%s/%s", netip.AddrPortFrom(p.HostIP, p.Published), p.Protocol)
}

// checkInternal refuses a published port that nobody outside could use.
func (c *converter) checkInternal(p spec.Project) {
	for _, s := range p.Services {
		outside := slices.ContainsFunc(s.Container.Networks, func(a spec.Attachment) bool {
			n, ok := p.Network(a.Name)
			return ok && !n.Internal
		})
		if len(s.Ports) > 0 && len(s.Container.Networks) > 0 && !outside {
			c.failAt(refuse("Join a network that isn't internal, or remove ports", "the service is in internal networks only, so its ports can't be published"), "services", s.Name, "ports")
		}
	}
}

// checkDependencies refuses unknown services, a service that waits for itself,
// and circles.
func (c *converter) checkDependencies(p spec.Project) {
	byName := map[string]*spec.Service{}
	for i := range p.Services {
		byName[p.Services[i].Name] = &p.Services[i]
	}
	for i := range p.Services {
		s := &p.Services[i]
		s.DependsOn = slices.DeleteFunc(s.DependsOn, func(d spec.Dependency) bool {
			on := byName[d.Service]
			switch {
			case on == nil && !d.Optional:
				c.failDependency(s.Name, d.Service, c.unknownService(d.Service))
			case on != nil && d.Condition == spec.DependCompleted && on.Restart.EndsNever():
				c.report.warn("%s waits until %s is completed, and with restart: %s it never is; restart: on-failure starts it again only when it fails", s.Name, d.Service, on.Restart.Mode)
			}
			return on == nil // an optional one that isn't there, as in Compose
		})
	}
	if circle := findCircle(p.Services, byName); circle != nil {
		last := circle[len(circle)-1]
		if len(circle) == 1 {
			c.failDependency(last, last, refuse("Remove it", "the service waits for itself"))
			return
		}
		c.failDependency(last, circle[0], refuse("Remove one of the dependencies", "the services wait for each other: %s", drawCircle(circle)))
	}
}

func drawCircle(circle []string) string {
	const shown = 12
	names := append(slices.Clone(circle), circle[0])
	if len(names) > shown {
		names = append(slices.Clone(names[:shown-1]), "...", circle[0])
	}
	return strings.Join(names, " -> ")
}

func (c *converter) unknownService(name string) *problem {
	if _, off := c.in.DisabledServices[name]; off {
		return refuse("Activate its profile, or write required: false", "the service %q is in a profile that isn't active", name)
	}
	return refuse("Correct the name, or add the service", "there is no service %q", clip(name))
}

func (c *converter) failDependency(service, on string, p *problem) {
	key, match := "depends_on", func(v string, _ *tree) bool { return v == on }
	for _, link := range c.in.Services[service].Links {
		if to, _, _ := strings.Cut(link, ":"); to == on { // a link is a dependency too
			key, match = "links", func(v string, _ *tree) bool { return v == link }
		}
	}
	at, path := c.whereItem(match, "services", service, key)
	c.fail(at, path, p)
}

// findCircle returns the services of one circle of dependencies, or nil.
func findCircle(services []spec.Service, byName map[string]*spec.Service) []string {
	done := map[string]bool{}
	var visit func(name string, trail []string) []string
	visit = func(name string, trail []string) []string {
		if i := slices.Index(trail, name); i >= 0 {
			return slices.Clone(trail[i:])
		}
		if done[name] {
			return nil
		}
		done[name] = true
		for _, d := range byName[name].DependsOn {
			if circle := visit(d.Service, append(trail, name)); circle != nil {
				return circle
			}
		}
		return nil
	}
	for _, s := range services {
		if circle := visit(s.Name, nil); circle != nil {
			return circle
		}
	}
	return nil
}

// checkNames refuses a container name that means two services.
func (c *converter) checkNames(p spec.Project) {
	owner := map[string]string{}
	for _, s := range p.Services {
		owner[s.Name] = s.Name
	}
	for _, s := range p.Services {
		n := s.Container.ContainerName
		if n == "" {
			continue
		}
		if o, ok := owner[n]; ok && o != s.Name {
			c.failAt(refuse("Choose another name", "service %s has the name %q already", o, n), "services", s.Name, "container_name")
		}
		owner[n] = s.Name
	}
}
