package netns

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"dunnage/netns/rules"
	"dunnage/spec"
)

// udpRoutes says which backends may answer a UDP flow.
type udpRoutes struct {
	cfg       Config
	local     map[netip.Addr]bool
	services  map[netip.Addr]map[netip.Addr]bool     // service address -> backends
	published map[netip.AddrPort]map[netip.Addr]bool // host address (zero = any) and port -> backends
}

func newUDPRoutes(r spec.Routing, cfg Config, local map[netip.Addr]bool) udpRoutes {
	u := udpRoutes{cfg: cfg, local: local, services: map[netip.Addr]map[netip.Addr]bool{}, published: map[netip.AddrPort]map[netip.Addr]bool{}}
	for _, s := range r.Services {
		u.services[s.Addr] = backendSet(s.Backends)
		if s.Addr6.IsValid() {
			u.services[s.Addr6] = backendSet(s.Backends)
		}
	}
	for _, p := range r.Published {
		if p.Protocol == spec.UDP {
			u.published[netip.AddrPortFrom(p.HostIP, p.Port)] = backendSet(p.Backends)
		}
	}
	return u
}

func backendSet(all []spec.Backend) map[netip.Addr]bool {
	set := map[netip.Addr]bool{}
	for _, b := range all {
		set[b.Addr] = true
		if b.Addr6.IsValid() {
			set[b.Addr6] = true
		}
	}
	return set
}

// stale reports whether the rules would send the flow elsewhere now.
func (u udpRoutes) stale(f flow) bool {
	if f.proto != unix.IPPROTO_UDP {
		return false
	}
	if backends, ok := u.services[f.dst]; ok {
		return !backends[f.answers]
	}
	if !u.local[f.dst] && !f.dst.IsLoopback() {
		// Not for us, unless it was: a service address that is gone.
		return f.dst != f.answers && u.inPool(f.dst)
	}
	backends, ok := u.find(f.dst, f.dport)
	if !ok {
		return f.dst != f.answers && u.inPool(f.answers)
	}
	return !backends[f.answers]
}

// find returns the backends of a published port; a rule for one address comes
// before the one for all of the family, as in the rules.
func (u udpRoutes) find(dst netip.Addr, port uint16) (map[netip.Addr]bool, bool) {
	every := netip.IPv4Unspecified()
	if dst.Is6() {
		every = netip.IPv6Unspecified()
	}
	for _, host := range []netip.Addr{dst, every, {}} {
		if b, ok := u.published[netip.AddrPortFrom(host, port)]; ok {
			return b, true
		}
	}
	return nil, false
}

// inPool reports whether a is a replica's or a service's address.
func (u udpRoutes) inPool(a netip.Addr) bool {
	for _, pool := range []netip.Prefix{u.cfg.Pool, u.cfg.Pool6} {
		if pool.IsValid() && pool.Contains(a) && !rules.ReservedSubnet(pool).Contains(a) {
			return true
		}
	}
	return false
}
