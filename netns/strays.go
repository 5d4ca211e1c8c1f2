package netns

import (
	"context"
	"net/netip"

	"dunnage/netns/rules"
)

// Strays counts the live connections that are answered from an address of a pool
// which nobody has: the client sends to where nothing is. Those of a replica are
// forgotten with it, so there are none unless somebody was in between.
func (n *Network) Strays(ctx context.Context, alive map[netip.Addr]bool) (map[netip.Addr]int, error) {
	all, err := n.flows(ctx, 0)
	if err != nil {
		return nil, err
	}
	out := map[netip.Addr]int{}
	for _, e := range all {
		if e.live() && !alive[e.answers] && n.forReplicas(e.answers) {
			out[e.answers]++
		}
	}
	return out, nil
}

// forReplicas reports whether an address is of a pool, and not reserved.
func (n *Network) forReplicas(a netip.Addr) bool {
	for _, pool := range n.pools() {
		if pool.Contains(a) && !rules.ReservedSubnet(pool).Contains(a) {
			return true
		}
	}
	return false
}

// ForgetStrays deletes the connections of addresses that nobody has.
func (n *Network) ForgetStrays(ctx context.Context, addrs []netip.Addr) error {
	return n.forgetConnections(ctx, addrs)
}
