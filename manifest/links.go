package manifest

import (
	"slices"
	"strings"

	"dunnage/spec"
)

func checkLink(v string) error {
	service, alias, aliased := strings.Cut(v, ":")
	if service == "" || strings.Contains(alias, ":") {
		return refuse("Write SERVICE or SERVICE:ALIAS", "%q isn't a link", clip(v))
	}
	if aliased {
		return checkHostname(alias)
	}
	return nil
}

// linkAliases makes the aliases of links names of the linked services in the
// networks that both services are in. Compose would let only the linking
// service know them; a name that would mean two services is refused.
func (c *converter) linkAliases(p spec.Project) {
	for _, s := range p.Services {
		for _, link := range c.in.Services[s.Name].Links {
			to, alias, _ := strings.Cut(link, ":")
			if i := slices.IndexFunc(p.Services, func(o spec.Service) bool { return o.Name == to }); i < 0 {
				continue // checkDependencies tells
			} else if bad := c.linkAlias(p, s, p.Services[i], alias); bad != nil {
				at, path := c.whereItem(func(v string, _ *tree) bool { return v == link }, "services", s.Name, "links")
				c.fail(at, path, bad)
			}
		}
	}
}

func (c *converter) linkAlias(p spec.Project, from, to spec.Service, alias string) *problem {
	shared := 0
	for i := range to.Container.Networks {
		a := &to.Container.Networks[i] // shares its array with p
		if !joins(from, a.Name) {
			continue
		}
		shared++
		if alias == "" || alias == to.Name || slices.Contains(a.Aliases, alias) {
			continue
		}
		for _, o := range p.Services {
			if o.Name != to.Name && joins(o, a.Name) && knownAs(o, a.Name, alias) {
				return refuse("Choose another alias", "%s is a name of service %s already", alias, o.Name)
			}
		}
		a.Aliases = append(a.Aliases, alias)
		slices.Sort(a.Aliases)
		c.report.note("%s: the link makes %s a name of %s for every member of network %s", from.Name, alias, to.Name, a.Name)
	}
	if shared == 0 {
		return refuse("Give them a common network", "the services %s and %s have no network in common", from.Name, to.Name)
	}
	return nil
}

func joins(s spec.Service, network string) bool { return attachment(s, network) != nil }

func attachment(s spec.Service, network string) *spec.Attachment {
	for i, a := range s.Container.Networks {
		if a.Name == network {
			return &s.Container.Networks[i]
		}
	}
	return nil
}

// knownAs reports whether a name means the service in the network.
func knownAs(s spec.Service, network, name string) bool {
	return s.Name == name || s.Container.ContainerName == name || slices.Contains(attachment(s, network).Aliases, name)
}
