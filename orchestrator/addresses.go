package orchestrator

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"dunnage/orchestrator/ipam"
	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// quarantineTime keeps an address unused after its replica is gone: peers'
// caches and half-closed connections of its last life must have ended. Linux
// keeps a closed TCP connection in conntrack for at most 120 s, but those of a
// removed replica are deleted with it; a minute covers what is outside the host.
const quarantineTime = time.Minute

// allocator hands out subnets and addresses out of the agent's pools. It is
// used by the loop's goroutine and, one at a time, by its executor.
type allocator struct {
	pool, pool6 netip.Prefix // pool6 zero = no IPv6
	state       *state
}

// fit refuses a project whose services and replicas can't all have an address,
// before the first of them takes one.
func (a allocator) fit(p spec.Project) error {
	need := map[string]int{}
	for _, s := range p.Services {
		for _, at := range s.Container.Networks {
			need[at.Name] += s.Replicas + 1 // the service has one of its own
		}
	}
	var errs []error
	for _, n := range p.Networks {
		if size := ipam.Size(a.pool); need[n.Name] > size {
			errs = append(errs, fmt.Errorf("network %s: its replicas and services need %d addresses, and a subnet of the pool %s has %d; use fewer replicas, or start the agent with a larger --pool", n.Name, need[n.Name], a.pool, size))
		}
	}
	return refused(errs)
}

// networks returns p's share of the pool with one subnet for each network of
// the manifest. Those it has already stay, also when the manifest no longer has
// them, as long as a replica is in them or the release to go back to needs them.
func (a allocator) networks(p spec.ProjectRecord, manifest spec.Project) ([]spec.NetworkAddressing, error) {
	taken, taken6 := a.subnets(p.Name)
	var out []spec.NetworkAddressing
	for _, n := range p.Networks {
		taken, taken6 = append(taken, n.Subnet), append(taken6, n.Subnet6)
	}
	for _, n := range manifest.Networks {
		id := manifest.NetworkID(n.Name)
		i := slices.IndexFunc(p.Networks, func(x spec.NetworkAddressing) bool { return x.ID == id })
		if i >= 0 {
			kept := p.Networks[i]
			kept.Internal = n.Internal
			out = append(out, kept)
			continue
		}
		if shared, ok := a.shared(id); ok {
			out = append(out, shared)
			continue
		}
		fresh := spec.NetworkAddressing{ID: id, Internal: n.Internal}
		var err error
		if fresh.Subnet, err = ipam.Subnet(a.pool, taken); err != nil {
			return nil, err
		}
		if a.pool6.IsValid() {
			if fresh.Subnet6, err = ipam.Subnet(a.pool6, taken6); err != nil {
				return nil, err
			}
		}
		taken, taken6 = append(taken, fresh.Subnet), append(taken6, fresh.Subnet6)
		out = append(out, fresh)
	}
	for _, n := range p.Networks {
		has := slices.ContainsFunc(out, func(x spec.NetworkAddressing) bool { return x.ID == n.ID })
		if !has && a.inUseBy(p, n.ID) {
			out = append(out, n)
		}
	}
	return out, nil
}

// inUseBy reports whether the project still needs a network.
func (a allocator) inUseBy(p spec.ProjectRecord, id string) bool {
	if good, ok := a.state.release(p.Name, p.Good); ok {
		if slices.ContainsFunc(good.Project.Networks, func(n spec.Network) bool { return good.Project.NetworkID(n.Name) == id }) {
			return true
		}
	}
	return slices.ContainsFunc(a.state.replicaRecords(), func(r spec.ReplicaRecord) bool {
		return r.Project == p.Name && slices.ContainsFunc(r.Addresses, func(e spec.EndpointAddress) bool { return e.Network == id })
	})
}

// shared finds a network that another project has brought in.
func (a allocator) shared(id string) (spec.NetworkAddressing, bool) {
	for _, name := range a.state.projectNames() {
		p, _ := a.state.project(name)
		i := slices.IndexFunc(p.Networks, func(n spec.NetworkAddressing) bool { return n.ID == id })
		if i >= 0 && !p.Down {
			return p.Networks[i], true
		}
	}
	return spec.NetworkAddressing{}, false
}

// subnets lists those that other projects have.
func (a allocator) subnets(except string) (v4, v6 []netip.Prefix) {
	for _, name := range a.state.projectNames() {
		p, _ := a.state.project(name)
		if name == except || p.Down {
			continue
		}
		for _, n := range p.Networks {
			v4, v6 = append(v4, n.Subnet), append(v6, n.Subnet6)
		}
	}
	// A project that was taken down keeps its subnets until its last replica
	// and the quarantine of its addresses are gone.
	for _, addr := range a.inUse(time.Time{}) {
		switch {
		case addr.Is4():
			p, _ := addr.Prefix(ipam.SubnetBits(a.pool)) // the bits fit
			v4 = append(v4, p)
		case addr.Is6() && a.pool6.IsValid():
			p, _ := addr.Prefix(ipam.SubnetBits(a.pool6))
			v6 = append(v6, p)
		}
	}
	return v4, v6
}

// leases returns a stable address for each service in each of its networks;
// existing ones stay, also of services that the manifest no longer has.
func (a allocator) leases(p spec.ProjectRecord, manifest spec.Project, now time.Time) ([]spec.ServiceLease, error) {
	out := slices.Clone(p.Addresses)
	taken := a.taken(now)
	for _, l := range out {
		taken[l.Addr], taken[l.Addr6] = true, true
	}
	for _, s := range manifest.Services {
		for _, at := range s.Container.Networks {
			id := manifest.NetworkID(at.Name)
			if slices.ContainsFunc(out, func(l spec.ServiceLease) bool { return l.Service == s.Name && l.Network == id }) {
				continue
			}
			e, err := pick(p.Networks, id, taken)
			if err != nil {
				return nil, err
			}
			out = append(out, spec.ServiceLease{Service: s.Name, Network: id, Addr: e.Addr, Addr6: e.Addr6})
		}
	}
	return out, nil
}

// endpoint returns fresh addresses for a replica of the service.
func (a allocator) endpoint(p spec.ProjectRecord, manifest spec.Project, s spec.Service, now time.Time) ([]spec.EndpointAddress, error) {
	taken := a.taken(now)
	var out []spec.EndpointAddress
	for _, at := range s.Container.Networks {
		e, err := pick(p.Networks, manifest.NetworkID(at.Name), taken)
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

// pick takes the lowest free address of the network and marks it taken.
func pick(networks []spec.NetworkAddressing, id string, taken map[netip.Addr]bool) (spec.EndpointAddress, error) {
	i := slices.IndexFunc(networks, func(n spec.NetworkAddressing) bool { return n.ID == id })
	if i < 0 {
		return spec.EndpointAddress{}, spec.ErrNotFound
	}
	n := networks[i]
	e := spec.EndpointAddress{Network: id, Subnet: n.Subnet, Subnet6: n.Subnet6, Internal: n.Internal}
	var err error
	if e.Addr, err = ipam.Addr(n.Subnet, taken); err != nil {
		return e, err
	}
	taken[e.Addr] = true
	if n.Subnet6.IsValid() {
		if e.Addr6, err = ipam.Addr(n.Subnet6, taken); err != nil {
			return e, err
		}
		taken[e.Addr6] = true
	}
	return e, nil
}

// taken is every address that may not be handed out at now.
func (a allocator) taken(now time.Time) map[netip.Addr]bool {
	out := map[netip.Addr]bool{}
	for _, addr := range a.inUse(now) {
		out[addr] = true
	}
	return out
}

// inUse lists the addresses of services, replicas and the quarantine at now.
func (a allocator) inUse(now time.Time) []netip.Addr {
	a.state.mu.Lock()
	defer a.state.mu.Unlock()
	var out []netip.Addr
	for _, p := range a.state.projects {
		if p.Down {
			continue
		}
		for _, l := range p.Addresses {
			out = append(out, l.Addr, l.Addr6)
		}
	}
	for _, r := range a.state.replicas {
		out = append(out, plan.Addresses(r)...)
	}
	for addr, until := range a.state.quarantine {
		if now.Before(until) {
			out = append(out, addr)
		}
	}
	return out
}
