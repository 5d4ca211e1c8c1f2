package netns

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"dunnage/spec"
)

// flow is a conntrack entry: what the client sent, and who answers.
type flow struct {
	proto        uint8
	src, dst     netip.Addr // of the client's packets, before translation
	dport        uint16
	answers      netip.Addr // source of the answers, before translation back
	answersTo    netip.Addr
	tcpState     uint8
	tcpHasStates bool
}

func fromIP(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// TCP states of conntrack in which a connection is over (linux/netfilter/
// nf_conntrack_tcp.h).
const (
	tcpTimeWait = 7
	tcpClose    = 8
)

// live reports whether somebody may still send: TCP that isn't closed, or UDP
// whose entry hasn't timed out (30 s after the last packet, 120 s for a stream).
func (f flow) live() bool {
	switch f.proto {
	case unix.IPPROTO_TCP:
		return !f.tcpHasStates || f.tcpState != tcpTimeWait && f.tcpState != tcpClose
	case unix.IPPROTO_UDP:
		return true
	default:
		return false
	}
}

// deleteFlows deletes the entries of a protocol (0 = all) for which match
// holds, in both families.
func (n *Network) deleteFlows(ctx context.Context, proto uint8, match func(flow) bool) error {
	for _, pool := range n.pools() {
		if err := ctx.Err(); err != nil {
			return err
		}
		all, err := dumpFlows(family(pool), proto)
		if err != nil {
			return err
		}
		for _, e := range all {
			if !match(e.flow) {
				continue
			}
			if err := deleteFlow(family(pool), e); err != nil {
				return err
			}
		}
	}
	return nil
}

// forgetConnections deletes every entry with one of the addresses in it.
func (n *Network) forgetConnections(ctx context.Context, addrs []netip.Addr) error {
	if len(addrs) == 0 {
		return nil
	}
	gone := map[netip.Addr]bool{}
	for _, a := range addrs {
		gone[a] = true
	}
	return n.deleteFlows(ctx, 0, func(f flow) bool {
		return gone[f.src] || gone[f.dst] || gone[f.answers] || gone[f.answersTo]
	})
}

// Connections counts the live flows that each address answers. Only addresses
// with at least one are in the result.
func (n *Network) Connections(ctx context.Context, addrs []netip.Addr) (map[netip.Addr]int, error) {
	asked := map[netip.Addr]bool{}
	for _, a := range addrs {
		asked[a] = true
	}
	count := map[netip.Addr]int{}
	for _, pool := range n.pools() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		all, err := dumpFlows(family(pool), 0)
		if err != nil {
			return nil, err
		}
		for _, e := range all {
			if asked[e.answers] && e.live() {
				count[e.answers]++
			}
		}
	}
	return count, nil
}

// sweepUDP deletes the UDP entries that the rules of r wouldn't make: a client
// that keeps sending from one port would stay on a backend that is out of the
// rules, or on no backend at all if it started before there was one. It looks
// at the host port, not the container's (moby#53384). Entries that r would
// make stay, so a restart of the agent cuts nobody off.
func (n *Network) sweepUDP(ctx context.Context, r spec.Routing) error {
	local, err := localAddrs()
	if err != nil {
		return err
	}
	u := newUDPRoutes(r, n.cfg, local)
	return n.deleteFlows(ctx, unix.IPPROTO_UDP, u.stale)
}

// localAddrs are the host's own addresses.
func localAddrs() (map[netip.Addr]bool, error) {
	list, err := retryDump(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list the host's addresses: %w", err)
	}
	all := map[netip.Addr]bool{}
	for _, a := range list {
		all[fromIP(a.IP)] = true
	}
	return all, nil
}
