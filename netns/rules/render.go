package rules

import (
	"fmt"
	"net/netip"
	"strings"

	"dunnage/spec"
)

// Render returns the whole rule set of r, for IPv4 and for IPv6 (nil without
// Config.Pool6). Errors wrap spec.ErrRefused: an address outside the pool, a
// port 0, a protocol that can't be published or a negative weight; they mean a
// bug or a damaged store, and nothing must be applied.
func Render(r spec.Routing, cfg Config) (v4, v6 Document, err error) {
	if err := cfg.Check(); err != nil {
		return nil, nil, err
	}
	if v4, err = newFamily(cfg.Pool).render(r); err != nil || !cfg.Pool6.IsValid() {
		return v4, nil, err
	}
	v6, err = newFamily(cfg.Pool6).render(r)
	return v4, v6, err
}

func (f family) render(r spec.Routing) (Document, error) {
	if err := f.check(r); err != nil {
		return nil, err
	}
	n := &nat{family: f, builder: newBuilder("nat"), names: &names{}, routing: r}
	n.render()
	if n.names.err != nil {
		return nil, n.names.err
	}
	return Document{f.raw(), f.filter(r.Networks), n.done()}, nil
}

func (f family) check(r spec.Routing) error {
	for _, n := range r.Networks {
		if err := f.checkSubnet(n); err != nil {
			return err
		}
	}
	for _, s := range r.Services {
		if err := f.checkTargets(f.service(s), s.Backends); err != nil {
			return fmt.Errorf("route service %s/%s in %s: %w", s.Project, s.Service, s.Network, err)
		}
	}
	for _, p := range r.Published {
		if err := f.checkPublished(p); err != nil {
			return fmt.Errorf("publish %s/%s on port %d/%s: %w", p.Project, p.Service, p.Port, p.Protocol, err)
		}
	}
	return nil
}

func (f family) checkSubnet(n spec.NetworkAddressing) error {
	s := pick(f, n.Subnet, n.Subnet6)
	if !s.IsValid() {
		return nil
	}
	if !f.pool.Contains(s.Addr()) || s.Bits() < f.pool.Bits() || s.Overlaps(ReservedSubnet(f.pool)) {
		return fmt.Errorf("network %s: %w: subnet %s isn't in the free part of pool %s", n.ID, spec.ErrRefused, s, f.pool)
	}
	return nil
}

func (f family) checkPublished(p spec.PublishedRoute) error {
	if p.Protocol != spec.TCP && p.Protocol != spec.UDP {
		return fmt.Errorf("%w: only tcp and udp can be published", spec.ErrRefused)
	}
	if p.Port == 0 || p.Target == 0 {
		return fmt.Errorf("%w: port 0 isn't resolved", spec.ErrRefused)
	}
	return f.checkTargets(netip.Addr{}, p.Backends)
}

func (f family) checkTargets(service netip.Addr, backends []spec.Backend) error {
	for _, a := range append(f.addresses(backends), service) {
		if a.IsValid() && (!f.pool.Contains(a) || ReservedSubnet(f.pool).Contains(a)) {
			return fmt.Errorf("%w: address %s isn't in the free part of pool %s", spec.ErrRefused, a, f.pool)
		}
	}
	for _, b := range backends {
		if b.Weight < 0 {
			return fmt.Errorf("%w: weight %d of %s", spec.ErrRefused, b.Weight, b.Replica)
		}
	}
	return nil
}

func (f family) addresses(backends []spec.Backend) []netip.Addr {
	var all []netip.Addr
	for _, b := range backends {
		all = append(all, f.backend(b))
	}
	return all
}

// owner is how comments name a service.
func owner(project, service string) string { return project + "/" + service }

// replicaComment names the service and the replica. Replica IDs repeat the
// service, but a person greps for "web/app".
func replicaComment(owner string, b spec.Backend) string {
	return comment(strings.TrimSpace(owner + " " + b.Replica))
}
