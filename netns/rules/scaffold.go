package rules

import "dunnage/spec"

// The scaffold: the raw and filter tables. It depends on the pools and the
// networks only, so that a redeploy never needs a commit in them (two tables
// are two commits, and the second can fail alone).

const (
	chainRaw     = Prefix + "RAW"
	chainForward = Prefix + "FORWARD"
	chainTo      = Prefix + "TO"
	chainFrom    = Prefix + "FROM"
	chainInput   = Prefix + "INPUT"
)

// raw drops forged sources before anything looks at them. rpfilter does what
// the sysctl rp_filter=1 does, but for IPv6 too and whatever the owner set for
// "all" (the kernel takes the larger number, and 2 is looser than 1).
func (f family) raw() Table {
	b := newBuilder("raw")
	b.jump("PREROUTING", true, comment("dunnage: forged addresses"), "-j "+chainRaw)
	b.add(chainRaw, "-i lo", comment("dunnage: the host itself"), "-j RETURN")
	if !f.v6 {
		b.add(chainRaw, "-d 127.0.0.0/8", "-i "+LinkPrefix+"+", comment("dunnage: the loopback of the host is closed to replicas"), "-j DROP")
	}
	b.add(chainRaw, "-i "+LinkPrefix+"+", "-m rpfilter --invert", comment("dunnage: not the address of the replica"), "-j DROP")
	b.add(chainRaw, "-i "+LinkPrefix+"+", comment("dunnage: replicas"), "-j RETURN")
	b.add(chainRaw, "-s "+host(f.Visitor), "-i "+VisitorLink, comment("dunnage: the visitor"), "-j RETURN")
	b.add(chainRaw, "-s "+f.pool.String(), comment("dunnage: only replicas have these addresses"), "-j DROP")
	return b.done()
}

func (f family) filter(networks []spec.NetworkAddressing) Table {
	b := newBuilder("filter")
	b.jump("INPUT", true, "-d "+f.pool.String(), comment("dunnage: pool addresses that the host has itself"), "-j "+chainInput)
	b.jump("FORWARD", true, comment("dunnage: traffic of replicas"), "-j "+chainForward)
	b.jump("OUTPUT", true, "-d "+f.pool.String(), comment("dunnage: pool addresses that the host has itself"), "-j "+chainOutput)
	f.forward(b)
	f.to(b, networks)
	f.from(b, networks)
	f.input(b)
	f.output(b)
	return b.done()
}

const (
	established = "-m conntrack --ctstate RELATED,ESTABLISHED"
	// invalid packets aren't translated back: let through, a late one would
	// reach the client from an address that it doesn't know, and its reset
	// would end the connection (kubernetes#74839).
	invalid = "-m conntrack --ctstate INVALID"
)

func (f family) forward(b *builder) {
	b.add(chainForward, comment("dunnage: rules of the operator come first"), "-j "+UserChain)
	b.add(chainForward, "-d "+f.pool.String(), comment("dunnage: to replicas"), "-j "+chainTo)
	b.add(chainForward, "-s "+f.pool.String(), comment("dunnage: from replicas to the outside"), "-j "+chainFrom)
}

// to decides about everything that is forwarded to the pool. A published port
// is what was translated and asked for another address than one of the pool;
// the gateway's address is the host's, so ports are published there too.
func (f family) to(b *builder, networks []spec.NetworkAddressing) {
	b.add(chainTo, established, comment("dunnage: known connections"), "-j ACCEPT")
	b.add(chainTo, invalid, comment("dunnage: of no connection"), "-j DROP")
	for _, n := range networks {
		if s := pick(f, n.Subnet, n.Subnet6); s.IsValid() {
			b.add(chainTo, "-s "+prefixText(s), "-d "+prefixText(s), comment("dunnage: "+n.ID), "-j ACCEPT")
		}
	}
	f.internal(b, chainTo, "-d ", networks)
	f.internal(b, chainTo, "-s ", networks)
	b.add(chainTo, "-m conntrack --ctstate DNAT ! --ctorigdst "+f.pool.String(), comment("dunnage: published ports"), "-j ACCEPT")
	b.add(chainTo, "-m conntrack --ctstate DNAT --ctorigdst "+addrText(f.Gateway), comment("dunnage: published ports at the gateway"), "-j ACCEPT")
	b.add(chainTo, comment("dunnage: replicas are closed"), "-j DROP")
}

func (f family) from(b *builder, networks []spec.NetworkAddressing) {
	b.add(chainFrom, established, comment("dunnage: known connections"), "-j ACCEPT")
	b.add(chainFrom, invalid, comment("dunnage: of no connection"), "-j DROP")
	f.internal(b, chainFrom, "-s ", networks)
	b.add(chainFrom, "-s "+host(f.Visitor), comment("dunnage: the visitor asks nobody outside"), "-j DROP")
	b.add(chainFrom, comment("dunnage: replicas may reach the outside"), "-j ACCEPT")
}

// internal closes the internal networks in one direction.
func (f family) internal(b *builder, chain, side string, networks []spec.NetworkAddressing) {
	for _, n := range networks {
		if s := pick(f, n.Subnet, n.Subnet6); n.Internal && s.IsValid() {
			b.add(chain, side+prefixText(s), comment("dunnage: "+n.ID+" is internal"), "-j DROP")
		}
	}
}

// input is for what arrives at the host under an address of the pool: held and
// refused connections, services without rules, and the host's own end of its
// connections to replicas. New connections from replicas to the gateway are
// the host's firewall's business, as with Docker.
func (f family) input(b *builder) {
	f.hold(b, chainInput)
	b.add(chainInput, established, comment("dunnage: known connections"), "-j ACCEPT")
	b.add(chainInput, "-d "+host(f.Gateway), "-i "+LinkPrefix+"+", comment("dunnage: replicas to the host"), "-j RETURN")
	b.add(chainInput, "-d "+host(f.Gateway), "-i lo", comment("dunnage: the host to itself"), "-j RETURN")
	f.reject(b, chainInput, "")
}

// output does the same for connections of the host, which don't pass FORWARD.
// Dropping and refusing here rather than at INPUT leaves no conntrack entry
// that a retry would follow. The reserved addresses are named one by one: the
// way out is still "lo" here for everything that OUTPUT's DNAT sends to a
// replica, so `-o lo` would match that too.
func (f family) output(b *builder) {
	f.hold(b, chainOutput)
	b.add(chainOutput, "-d "+host(f.Hold), comment("dunnage: only TCP waits"), "-j REJECT --reject-with "+f.icmpReject())
	f.reject(b, chainOutput, "-d "+host(f.Refuse))
}

// hold drops a SYN, which is sent again after a second. Other protocols send
// nothing again, and who asks may ask elsewhere at once if it is told: they go
// on to be refused.
func (f family) hold(b *builder, chain string) {
	b.add(chain, "-d "+host(f.Hold), "-p tcp", comment("dunnage: held until a replica is ready"), "-j DROP")
}

func (f family) reject(b *builder, chain, match string) {
	b.add(chain, match, "-p tcp", comment("dunnage: refused"), "-j REJECT --reject-with tcp-reset")
	b.add(chain, match, comment("dunnage: refused"), "-j REJECT --reject-with "+f.icmpReject())
}
