package rules

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"

	"dunnage/spec"
)

// The fixed chains of the nat table.
const (
	chainPrerouting  = Prefix + "PREROUTING"
	chainOutput      = Prefix + "OUTPUT"
	chainPostrouting = Prefix + "POSTROUTING"
	chainServices    = Prefix + "SERVICES"
	chainPublished   = Prefix + "PUBLISHED"
	chainHairpin     = Prefix + "HAIRPIN"
)

// nat renders the table that a redeploy changes.
type nat struct {
	family
	*builder
	*names
	routing spec.Routing
}

func (n *nat) render() {
	n.jumps()
	n.entry()
	n.services()
	n.published()
	n.postrouting()
}

// jumps to where destinations change come before what others have, and stay
// there: what a release publishes is to be reached (see ADR 21). Others lose
// nothing else by it, since our chains translate published ports and pool
// addresses alone. Source addresses are the owner's to decide first.
func (n *nat) jumps() {
	n.jump("PREROUTING", true, comment("dunnage: service addresses and published ports"), "-j "+chainPrerouting)
	n.jump("OUTPUT", true, comment("dunnage: the same for the host itself"), "-j "+chainOutput)
	n.lead()
	n.jump("POSTROUTING", false, comment("dunnage: source addresses"), "-j "+chainPostrouting)
}

// entry sorts packets by destination. A packet from outside to 127.0.0.0/8 is
// left alone: DNAT comes before the kernel's check for such impostors, so a
// port published on loopback would be open to the LAN (moby#45610).
func (n *nat) entry() {
	for _, chain := range []string{chainPrerouting, chainOutput} {
		n.add(chain, "-d "+n.pool.String(), comment("dunnage: service addresses"), "-j "+chainServices)
		if except := n.neverPublished(chain); except != "" {
			n.add(chain, "-d "+except, comment("dunnage: never published here"), "-j RETURN")
		}
		if n.v6 {
			n.add(chain, "-d fe80::/10", comment("dunnage: link-local is never forwarded"), "-j RETURN")
		}
		n.add(chain, "-m addrtype --dst-type LOCAL", comment("dunnage: published ports"), "-j "+chainPublished)
	}
}

func (n *nat) neverPublished(chain string) string {
	switch {
	case n.v6:
		return "::1/128"
	case chain == chainPrerouting:
		return "127.0.0.0/8"
	default:
		return ""
	}
}

// services dispatches by network, then by service.
func (n *nat) services() {
	n.chain(chainServices)
	seen := map[string]bool{}
	for _, s := range n.routing.Services {
		subnet, ok := n.network(s.Network)
		if !ok || !n.service(s).IsValid() {
			continue
		}
		network := n.hashed(kindNetwork, s.Network)
		if !seen[s.Network] {
			seen[s.Network] = true
			n.add(chainServices, "-d "+prefixText(subnet), comment("dunnage: "+s.Network), "-j "+network)
		}
		chain := n.hashed(kindService, s.Project, s.Service, s.Network)
		name := owner(s.Project, s.Service)
		n.add(network, "-d "+host(n.service(s)), comment(name+" in "+s.Network), "-j "+chain)
		n.balance(chain, split{owner: name, sticky: s.Sticky, backends: s.Backends, absent: s.Absent})
	}
}

func (n *nat) network(id string) (netip.Prefix, bool) {
	for _, net := range n.routing.Networks {
		if s := pick(n.family, net.Subnet, net.Subnet6); net.ID == id && s.IsValid() {
			return s, true
		}
	}
	return netip.Prefix{}, false
}

// split says what a chain spreads its connections over.
type split struct {
	owner    string // for comments: project/service
	proto    spec.Protocol
	port     uint16 // of backends that have none of their own; 0 keeps the packet's
	sticky   bool
	backends []spec.Backend
	absent   spec.Absent
}

// balance gives every backend its weight's share of the connections, or of the
// clients.
func (n *nat) balance(chain string, s split) {
	own := n.backends(s.backends)
	switch {
	case len(own) == 0:
		to := n.Refuse
		if s.absent == spec.Hold {
			to = n.Hold
		}
		n.add(chain, comment(s.owner+" has no ready replica"), "-j DNAT --to-destination "+addrText(to))
	case s.sticky && len(own) > 1:
		n.sticky(chain, s, own)
	default:
		n.random(chain, s, own)
	}
}

// random lets the kernel throw dice: each backend takes its weight's part of
// what those before it left, the last one everything.
func (n *nat) random(chain string, s split, own []spec.Backend) {
	rest := total(own)
	for _, b := range own {
		n.dnat(chain, s, "", b, chance(weight(b), rest))
		rest -= weight(b)
	}
}

func (n *nat) dnat(chain string, s split, source string, b spec.Backend, chance string) {
	port, proto := cmp.Or(b.Port, s.port), ""
	if port != 0 { // only then the target needs it
		proto = "-p " + string(s.proto)
	}
	n.add(chain, source, proto, replicaComment(s.owner, b), chance,
		"-j DNAT --to-destination "+n.destination(n.backend(b), port))
}

func weight(b spec.Backend) int { return max(b.Weight, 1) }

func total(all []spec.Backend) (sum int) {
	for _, b := range all {
		sum += weight(b)
	}
	return sum
}

// chance is the statistic match with probability part/whole. The kernel keeps
// probabilities as multiples of 2^-31 and iptables-save prints 11 digits of
// them, so the nearest multiple is computed here.
func chance(part, whole int) string {
	if part == whole {
		return ""
	}
	const unit = 1 << 31
	return fmt.Sprintf("-m statistic --mode random --probability %.11f", math.Round(unit*float64(part)/float64(whole))/unit)
}

// postrouting rewrites sources where the answer couldn't come back otherwise:
// replicas that reach themselves, the host's own 127.0.0.1, and the outside.
// Everywhere else the client's address stays.
func (n *nat) postrouting() {
	n.add(chainPostrouting, "-s "+n.pool.String(), "-d "+n.pool.String(), comment("dunnage: replicas that reach themselves"), "-j "+chainHairpin)
	if !n.v6 {
		n.add(chainPostrouting, "-s 127.0.0.0/8", "-o "+LinkPrefix+"+", comment("dunnage: loopback to replicas"), "-j SNAT --to-source "+n.Gateway.String())
	}
	n.add(chainPostrouting, "-s "+n.pool.String(), "! -d "+n.pool.String(), "! -o "+LinkPrefix+"+", comment("dunnage: replicas to the outside"), "-j MASQUERADE")
	n.hairpin()
}
