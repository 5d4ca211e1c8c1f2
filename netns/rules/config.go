package rules

import (
	"fmt"
	"net/netip"

	"dunnage/spec"
)

// Names of chains that others refer to.
const (
	// Prefix begins the name of every chain that dunnage owns.
	Prefix = "DUNNAGE-"
	// UserChain belongs to the operator: evaluated first for every forwarded
	// packet, made once, never flushed, never deleted while it has rules.
	UserChain = "DUNNAGE-USER"
	// LinkPrefix begins the name of every host-side link, so that `-i dun+`
	// means "from a replica".
	LinkPrefix = "dun"
	// VisitorLink is the host's side of the visitor's link. To the rules it is
	// a link to another machine.
	VisitorLink = "visit-dunnage"
	// maxChain is the kernel's limit on chain names (XT_EXTENSION_MAXNAMELEN-1).
	maxChain = 28
)

// Config is the part of a rule set that isn't routing.
type Config struct {
	Pool  netip.Prefix // IPv4 addresses of replicas and services, at least a /23
	Pool6 netip.Prefix // IPv6, at least a /63; zero = no IPv6 rules at all
}

// Addresses are the reserved addresses of a pool.
type Addresses struct {
	Gateway netip.Addr // the host's own: source of its connections to replicas
	Hold    netip.Addr // a connection sent here gets no answer, so its retry meets the next rules
	Refuse  netip.Addr // a connection sent here is reset
	Visitor netip.Addr // the visitor's, who asks published ports as a client would
}

// Reserved returns the reserved addresses of pool: .1 to .4 of its first /24
// (IPv6: ::1 to ::4 of its first /64). Networks get their subnets from the
// second /24 (/64) on.
func Reserved(pool netip.Prefix) Addresses {
	gateway := pool.Masked().Addr().Next()
	hold := gateway.Next()
	refuse := hold.Next()
	return Addresses{Gateway: gateway, Hold: hold, Refuse: refuse, Visitor: refuse.Next()}
}

// ReservedSubnet returns the part of pool that no network may have.
func ReservedSubnet(pool netip.Prefix) netip.Prefix {
	bits := 24
	if pool.Addr().Is6() {
		bits = 64
	}
	return netip.PrefixFrom(pool.Masked().Addr(), bits)
}

// reserved are prefixes whose addresses replicas can't have, and why.
var reserved = []struct {
	prefix netip.Prefix
	why    string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "no host can have its addresses"},
	{netip.MustParsePrefix("127.0.0.0/8"), "it is each host's loopback"},
	{netip.MustParsePrefix("169.254.0.0/16"), "it is link-local, and replicas' gateway is in it"},
	{netip.MustParsePrefix("224.0.0.0/4"), "it is multicast"},
	{netip.MustParsePrefix("240.0.0.0/4"), "it is reserved"},
	{netip.MustParsePrefix("::/8"), "it has the loopback and embedded IPv4 addresses"},
	{netip.MustParsePrefix("fe80::/10"), "it is link-local, and replicas' gateway is in it"},
	{netip.MustParsePrefix("ff00::/8"), "it is multicast"},
}

// widest are the shortest prefixes of pools: what isn't used of one is made
// unreachable, and a wider one would be most of the world.
const (
	widest       = 8
	widestGlobal = 32 // of 2000::/3, the IPv6 world
)

var global6 = netip.MustParsePrefix("2000::/3")

// sane refuses a pool whose addresses mean something else to every host.
func sane(name string, pool netip.Prefix, example string) error {
	refuse := func(format string, args ...any) error {
		return fmt.Errorf("%s %s: %w: %s: use a private prefix that nothing around the host uses, for example %s", name, pool, spec.ErrRefused, fmt.Sprintf(format, args...), example)
	}
	for _, r := range reserved {
		if r.prefix.Overlaps(pool) {
			return refuse("it overlaps %s, and %s", r.prefix, r.why)
		}
	}
	switch {
	case pool.Bits() < widest:
		return refuse("it is wider than a /%d, and what isn't used of it is made unreachable", widest)
	case pool.Overlaps(global6) && pool.Bits() < widestGlobal:
		return refuse("it is a part of the IPv6 world wider than a /%d, and what isn't used of it is made unreachable", widestGlobal)
	}
	return nil
}

// Check reports a pool that can't hold the reserved part and one network, or
// whose addresses can't be anybody's.
func (c Config) Check() error {
	if !c.Pool.IsValid() || !c.Pool.Addr().Is4() || c.Pool.Bits() > 23 {
		return fmt.Errorf("pool %q: %w: it must be an IPv4 prefix of /23 or larger, for example 10.213.0.0/16", c.Pool, spec.ErrRefused)
	}
	if c.Pool6.IsValid() && (!c.Pool6.Addr().Is6() || c.Pool6.Bits() > 63) {
		return fmt.Errorf("pool6 %q: %w: it must be an IPv6 prefix of /63 or larger, for example fd00:d::/48", c.Pool6, spec.ErrRefused)
	}
	if err := sane("pool", c.Pool, "10.213.0.0/16"); err != nil || !c.Pool6.IsValid() {
		return err
	}
	return sane("pool6", c.Pool6, "fd00:d::/48")
}
