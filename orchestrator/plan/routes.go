package plan

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"dunnage/spec"
)

// Routes says where connections go: a pure function of what is desired and
// which replicas are usable. No route names a replica that isn't usable.
func Routes(d Desired, o Observed) spec.Routing {
	var all []*view
	for i := range d.Projects {
		all = append(all, views(&d.Projects[i], o)...)
	}
	return routes(d, all, absences(all, o), o.Now)
}

func routes(d Desired, all []*view, held map[string]Absence, now time.Time) spec.Routing {
	var r spec.Routing
	for _, p := range d.Projects {
		r.Networks = append(r.Networks, p.Record.Networks...)
	}
	for _, v := range all {
		backends := v.backends()
		weights := v.weights(backends, now)
		for _, a := range v.Container.Networks {
			network := v.project.Release.Project.NetworkID(a.Name)
			if lease, ok := leaseOf(v.project.Record, v.Name, network); ok {
				r.Services = append(r.Services, spec.ServiceRoute{
					Project: v.project.Record.Name, Service: v.Name, Network: network,
					Addr: lease.Addr, Addr6: lease.Addr6, Sticky: v.Sticky, Backends: weigh(targets(backends, network), weights),
					Absent: v.absent(held, now, spec.TCP), // the address is every protocol's, and the rules hold TCP alone
				})
			}
		}
		for _, p := range v.Ports {
			r.Published = append(r.Published, spec.PublishedRoute{
				Project: v.project.Record.Name, Service: v.Name,
				HostIP: p.HostIP, Port: p.Published, Protocol: p.Protocol, Target: p.Target,
				Allow: v.Allow, Sticky: v.Sticky, Backends: v.listening(p, weigh(targets(backends, v.outside()), weights)),
				Absent: v.absent(held, now, p.Protocol),
			})
		}
	}
	slices.SortFunc(r.Networks, func(a, b spec.NetworkAddressing) int { return cmp.Compare(a.ID, b.ID) })
	r.Networks = slices.CompactFunc(r.Networks, func(a, b spec.NetworkAddressing) bool { return a.ID == b.ID }) // shared ones
	slices.SortFunc(r.Services, func(a, b spec.ServiceRoute) int {
		return cmp.Or(cmp.Compare(a.Project, b.Project), cmp.Compare(a.Service, b.Service), cmp.Compare(a.Network, b.Network))
	})
	slices.SortFunc(r.Published, func(a, b spec.PublishedRoute) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port), a.HostIP.Compare(b.HostIP))
	})
	return r
}

// listening says of backends of the release before where they take what is
// published, if the release moves it to another port inside.
func (v *view) listening(p spec.Port, backends []spec.Backend) []spec.Backend {
	before, changed := v.before()
	if !changed {
		return backends
	}
	same := func(old spec.Port) bool { return old.Published == p.Published && old.Protocol == p.Protocol }
	i := slices.IndexFunc(before.Ports, same)
	if i < 0 || before.Ports[i].Target == p.Target {
		return backends
	}
	for j, b := range backends {
		if v.isBefore(b.Replica) {
			backends[j].Port = before.Ports[i].Target
		}
	}
	return backends
}

// before is the service as the release before has it, if its replicas are others.
func (v *view) before() (s spec.Service, changed bool) {
	if v.goodGen == "" || v.goodGen == v.gen {
		return s, false
	}
	return v.project.Good.Project.Service(v.Name)
}

// isBefore reports whether the replica is one of the release before.
func (v *view) isBefore(id string) bool {
	return slices.ContainsFunc(v.others, func(r *Replica) bool { return r.ID == id && r.Generation == v.goodGen })
}

// outside is the network whose addresses take connections from outside: the
// first that isn't internal.
func (v *view) outside() string {
	for _, a := range v.Container.Networks {
		if n, ok := v.project.Release.Project.Network(a.Name); ok && !n.Internal {
			return v.project.Release.Project.NetworkID(a.Name)
		}
	}
	return ""
}

func targets(rs []*Replica, network string) []spec.Backend {
	var out []spec.Backend
	for _, r := range rs {
		if a, a6 := r.Addr(network); a.IsValid() {
			out = append(out, spec.Backend{Replica: r.ID, Addr: a, Addr6: a6})
		}
	}
	slices.SortFunc(out, func(a, b spec.Backend) int { return a.Addr.Compare(b.Addr) })
	return out
}

// Addresses lists the replica's addresses, IPv4 before IPv6 in each network.
func Addresses(r spec.ReplicaRecord) []netip.Addr {
	var out []netip.Addr
	for _, a := range r.Addresses {
		out = append(out, a.Addr)
		if a.Addr6.IsValid() {
			out = append(out, a.Addr6)
		}
	}
	return out
}
