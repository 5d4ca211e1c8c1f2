package rules

import (
	"fmt"
	"net/netip"

	"dunnage/spec"
)

// family is one address family's view of a routing: every rule is written
// once and rendered through it twice.
type family struct {
	v6   bool
	pool netip.Prefix
	Addresses
}

func newFamily(pool netip.Prefix) family {
	return family{v6: pool.Addr().Is6(), pool: pool.Masked(), Addresses: Reserved(pool)}
}

// pick returns the address or subnet of this family.
func pick[T any](f family, v4, v6 T) T {
	if f.v6 {
		return v6
	}
	return v4
}

func (f family) backend(b spec.Backend) netip.Addr      { return pick(f, b.Addr, b.Addr6) }
func (f family) service(s spec.ServiceRoute) netip.Addr { return pick(f, s.Addr, s.Addr6) }

// serves reports whether a route published on hostIP has rules in this family.
// ::1 has none: a connection from it that is DNATed hangs, because the kernel
// doesn't route packets from ::1 out of a link; without a rule it is refused
// at once and "localhost" falls back to 127.0.0.1.
func (f family) serves(hostIP netip.Addr) bool {
	if !hostIP.IsValid() {
		return true
	}
	return hostIP.Is6() == f.v6 && (!f.v6 || !hostIP.IsLoopback())
}

// backends lists the family's backend addresses and their replicas.
func (f family) backends(all []spec.Backend) []spec.Backend {
	var own []spec.Backend
	for _, b := range all {
		if f.backend(b).IsValid() {
			own = append(own, b)
		}
	}
	return own
}

// destination is the argument of --to-destination; port 0 keeps the packet's.
func (f family) destination(a netip.Addr, port uint16) string {
	switch {
	case port == 0:
		return addrText(a)
	case f.v6:
		return fmt.Sprintf("[%s]:%d", addrText(a), port)
	default:
		return fmt.Sprintf("%s:%d", a, port)
	}
}

func (f family) icmpReject() string {
	return pick(f, "icmp-port-unreachable", "icmp6-port-unreachable")
}

// host is a single address as -s and -d print it.
func host(a netip.Addr) string {
	return fmt.Sprintf("%s/%d", addrText(a), a.BitLen())
}

func prefixText(p netip.Prefix) string {
	return fmt.Sprintf("%s/%d", addrText(p.Masked().Addr()), p.Bits())
}

// addrText prints an address as glibc's inet_ntop does, which iptables-save
// uses. It differs from netip's form for the old IPv4-compatible addresses
// (::1.2.3.4) only.
func addrText(a netip.Addr) string {
	b := a.As16()
	if !a.Is6() || a.Is4In6() || [12]byte(b[:12]) != [12]byte{} || b[12] == 0 && b[13] == 0 {
		return a.WithZone("").String()
	}
	return "::" + netip.AddrFrom4([4]byte(b[12:])).String()
}
