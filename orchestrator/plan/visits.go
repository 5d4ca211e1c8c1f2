package plan

import (
	"cmp"
	"net/netip"

	"dunnage/spec"
)

// visits lists the addresses that clients of the services use: every published
// TCP port, at the address that it is published on or at those of the host that
// other machines use, and the service addresses, as far as it is known what
// listens there.
func visits(all []*view, r spec.Routing, fronts []netip.Addr) []spec.VisitTarget {
	services := map[string]*view{}
	for _, v := range all {
		if !v.stopped && v.Replicas > 0 {
			services[v.path()] = v
		}
	}
	var out []spec.VisitTarget
	for _, p := range r.Published {
		v := services[p.Project+"/"+p.Service]
		if v == nil || p.Protocol != spec.TCP {
			continue
		}
		for _, host := range facing(p.HostIP, fronts) {
			t := v.target(netip.AddrPortFrom(host, p.Port), p.Backends, p.Absent)
			t.Port, t.Path = p.Port, v.asksPath(p)
			if host.IsLoopback() {
				t.From = spec.FromHost
			}
			out = append(out, t)
		}
	}
	for _, s := range r.Services {
		v := services[s.Project+"/"+s.Service]
		if v == nil {
			continue
		}
		port := v.listens(s.Backends)
		if port == 0 {
			continue
		}
		t := v.target(netip.AddrPortFrom(s.Addr, port), s.Backends, s.Absent)
		t.From = spec.FromHost
		out = append(out, t)
	}
	return out
}

// target is an address that leads to the backends.
func (v *view) target(to netip.AddrPort, backends []spec.Backend, absent spec.Absent) spec.VisitTarget {
	t := spec.VisitTarget{Project: v.project.Record.Name, Service: v.Name, Addr: to, Absent: true}
	for _, b := range backends {
		if to.Addr().Is4() || b.Addr6.IsValid() {
			t.Absent = false
		}
	}
	if t.Absent && absent == spec.Hold {
		t.Patience = v.Hold
	}
	t.Absent = t.Absent || v.awaitsJoiner()
	return t
}

// facing lists the addresses that a port published on hostIP is asked at. [::1]
// and link-local ones aren't published.
func facing(hostIP netip.Addr, fronts []netip.Addr) []netip.Addr {
	hostIP = hostIP.Unmap()
	switch {
	case hostIP.Is6() && (hostIP.IsLoopback() || hostIP.IsLinkLocalUnicast()):
		return nil
	case hostIP.IsValid() && !hostIP.IsUnspecified():
		return []netip.Addr{hostIP}
	}
	var out []netip.Addr
	for _, f := range fronts {
		if !hostIP.IsValid() || hostIP.Is6() == f.Is6() {
			out = append(out, f)
		}
	}
	return out
}

// asksPath is what the service's own HTTP probe asks the route's port for, as far
// as all backends have it; empty = nothing.
func (v *view) asksPath(p spec.PublishedRoute) string {
	path := httpPath(v.Service, p.Target)
	before, changed := v.before()
	for _, b := range p.Backends {
		if changed && v.isBefore(b.Replica) && httpPath(before, cmp.Or(b.Port, p.Target)) != path {
			return ""
		}
	}
	return path
}

func httpPath(s spec.Service, port uint16) string {
	for _, p := range s.Container.Probes {
		if p.Kind == spec.ProbeHTTP && p.Port == port {
			return p.Path
		}
	}
	return ""
}

// listens is a TCP port that all backends are known to listen on, 0 = none.
func (v *view) listens(backends []spec.Backend) uint16 {
	before, changed := v.before()
	old := 0
	for _, b := range backends {
		if changed && v.isBefore(b.Replica) {
			old++
		}
	}
	port, portBefore := listens(v.Service), listens(before)
	switch {
	case old == 0 || port == portBefore:
		return port
	case old == len(backends):
		return portBefore
	default:
		return 0
	}
}

// listens is a TCP port that the service is known to listen on, 0 = none: one
// that is probed, or published.
func listens(s spec.Service) uint16 {
	for _, p := range s.Container.Probes {
		if p.Kind == spec.ProbeHTTP || p.Kind == spec.ProbeTCP {
			return p.Port
		}
	}
	for _, p := range s.Ports {
		if p.Protocol == spec.TCP {
			return p.Target
		}
	}
	return 0
}
