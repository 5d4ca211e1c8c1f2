package rules

import (
	"cmp"
	"net/netip"
	"slices"

	"dunnage/spec"
)

// hairpin lets a replica be its own backend. It would drop an answer from its
// own address, so the source becomes the gateway. A replica in several
// networks may start from one of its addresses and be sent to another: every
// pair gets a rule. A chain per network keeps the cost of a new connection
// between replicas to the size of one network.
func (n *nat) hairpin() {
	n.chain(chainHairpin)
	replicas := n.replicas()
	for _, net := range n.routing.Networks {
		subnet := pick(n.family, net.Subnet, net.Subnet6)
		if !subnet.IsValid() {
			continue
		}
		chain := n.hashed(kindHairpin, net.ID)
		used := false
		for _, r := range replicas {
			used = n.pairs(chain, subnet, r) || used
		}
		if used {
			n.add(chainHairpin, "-s "+prefixText(subnet), comment("dunnage: "+net.ID), "-j "+chain)
		}
	}
}

// pairs writes the rules of one replica for its address in subnet.
func (n *nat) pairs(chain string, subnet netip.Prefix, r hairpinReplica) (used bool) {
	for _, src := range r.addrs {
		if !subnet.Contains(src) {
			continue
		}
		for _, dst := range r.addrs {
			used = true
			n.add(chain, "-s "+host(src), "-d "+host(dst), comment(r.name), "-j SNAT --to-source "+addrText(n.Gateway))
		}
	}
	return used
}

// hairpinReplica is a routed replica with all its addresses, sorted.
type hairpinReplica struct {
	id, name string
	addrs    []netip.Addr
}

func (n *nat) replicas() []hairpinReplica {
	byID := map[string]*hairpinReplica{}
	for _, s := range n.routing.Services {
		n.collect(byID, owner(s.Project, s.Service), s.Backends)
	}
	for _, p := range n.routing.Published {
		n.collect(byID, owner(p.Project, p.Service), p.Backends)
	}
	all := make([]hairpinReplica, 0, len(byID))
	for _, r := range byID {
		slices.SortFunc(r.addrs, netip.Addr.Compare)
		r.addrs = slices.Compact(r.addrs)
		all = append(all, *r)
	}
	slices.SortFunc(all, func(a, b hairpinReplica) int { return cmp.Compare(a.id, b.id) })
	return all
}

func (n *nat) collect(byID map[string]*hairpinReplica, name string, backends []spec.Backend) {
	for _, b := range n.backends(backends) {
		if byID[b.Replica] == nil {
			byID[b.Replica] = &hairpinReplica{id: b.Replica, name: name + " " + b.Replica}
		}
		byID[b.Replica].addrs = append(byID[b.Replica].addrs, n.backend(b))
	}
}
