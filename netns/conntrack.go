package netns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"dunnage/internal/fault"
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

// flows lists the entries of a protocol (0 = all) in the pools' families. Both
// are in one table, which takes one walk; but to filter it the kernel wants to
// be told a family.
func (n *Network) flows(ctx context.Context, proto uint8) ([]entry, error) {
	families := []uint8{unix.AF_INET, unix.AF_INET6}
	switch {
	case !n.cfg.Pool6.IsValid():
		families = families[:1]
	case proto == 0:
		families = []uint8{unix.AF_UNSPEC}
	}
	var all []entry
	for _, f := range families {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		found, err := n.conntrack.dumpFlows(f, proto)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

// deleteFlows deletes the entries of a protocol (0 = all) for which match
// holds, in both families.
func (n *Network) deleteFlows(ctx context.Context, proto uint8, match func(flow) bool) error {
	all, err := n.flows(ctx, proto)
	if err != nil {
		return err
	}
	for _, e := range all {
		if !match(e.flow) {
			continue
		}
		if err := fault.Do("conntrack delete", func() error { return n.conntrack.deleteFlow(e) }); err != nil {
			return err
		}
	}
	return nil
}

// forgetting collects addresses whose connections are to be forgotten. To walk
// conntrack's table takes 10 ms of a CPU however little is in it, so those who
// ask while a walk is under way share the next one.
type forgetting struct {
	walk sync.Mutex // one walk at a time
	mu   sync.Mutex
	next *forgotten
}

// forgotten is one walk, under way or over.
type forgotten struct {
	addrs map[netip.Addr]bool
	done  bool
	err   error
}

// join adds to the walk that comes next.
func (f *forgetting) join(addrs []netip.Addr) *forgotten {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.next == nil {
		f.next = &forgotten{addrs: map[netip.Addr]bool{}}
	}
	for _, a := range addrs {
		f.next.addrs[a] = true
	}
	return f.next
}

// begin closes the walk that comes next to more addresses.
func (f *forgetting) begin() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next = nil
}

// forgetConnections deletes every entry with one of the addresses in it.
func (n *Network) forgetConnections(ctx context.Context, addrs []netip.Addr) error {
	if len(addrs) == 0 {
		return nil
	}
	w := n.forgetting.join(addrs)
	n.forgetting.walk.Lock()
	defer n.forgetting.walk.Unlock()
	if !w.done { // the first of those who share it walks
		n.forgetting.begin()
		w.err = n.deleteFlows(ctx, 0, func(f flow) bool {
			return w.addrs[f.src] || w.addrs[f.dst] || w.addrs[f.answers] || w.addrs[f.answersTo]
		})
		w.done = true
	}
	return w.err
}

// Connections counts the live flows that each address answers, but for those of
// the visitor, for whom nothing need wait. Only addresses with at least one are
// in the result.
func (n *Network) Connections(ctx context.Context, addrs []netip.Addr) (map[netip.Addr]int, error) {
	asked := map[netip.Addr]bool{}
	for _, a := range addrs {
		asked[a] = true
	}
	all, err := n.flows(ctx, 0)
	if err != nil {
		return nil, err
	}
	ours := endpointAddrs(n.visitorEndpoint())
	count := map[netip.Addr]int{}
	for _, e := range all {
		if asked[e.answers] && e.live() && !slices.Contains(ours, e.src) {
			count[e.answers]++
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
