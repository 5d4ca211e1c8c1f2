package netns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"dunnage/netns/rules"
)

// kernelState is what the kernel has of ours on the host, beside the rules: one
// dump of each kind, whatever the number of replicas. It isn't changed once made.
type kernelState struct {
	links      map[string]*netlink.LinkAttrs // by replica
	disowned   []int                         // indexes of links that Detach has left to the kernel
	visitor    *netlink.LinkAttrs            // nil = it has no link
	routes     map[hop]bool
	neighbours map[hop]net.HardwareAddr // permanent ones
	leastMTU   int                      // that a link of ours needs
	stuck      map[int]bool             // see notForwarding
	uplinks    []*netlink.LinkAttrs     // by which IPv4 clients come: the links of the default route and of the front

	local        map[netip.Addr]bool   // with a local route
	closed       map[netip.Prefix]bool // pools whose rest is unreachable
	lostGateways []netip.Addr          // that aren't addresses of the host any more
	fronts       []netip.Addr          // that clients use
}

// seen is the kernel's state at the last dump.
type seen struct {
	sync.Mutex
	news  news
	state *kernelState // nil = to be dumped

	overlaps     []string // see Overlaps
	overlapsWith *kernelState
	sweptWith    *kernelState // the last Sweep's

	disowned map[int]time.Time // links without an owner's name -> first seen
}

// kernelState asks the kernel, if anything there has changed since.
func (n *Network) kernelState() (kernelState, error) {
	n.seen.Lock()
	defer n.seen.Unlock()
	changed, err := n.seen.news.any()
	if err != nil {
		return kernelState{}, err
	}
	if !changed && n.seen.state != nil {
		return *n.seen.state, nil
	}
	n.seen.state = nil
	s, err := n.dump()
	if err == nil {
		n.seen.state = &s
	}
	return s, err
}

// overlapsOnce looks again if the kernel's state has changed since.
func (s *seen) overlapsOnce(find func() ([]string, error)) (all []string, err error) {
	s.Lock()
	defer s.Unlock()
	if s.state != nil && s.state == s.overlapsWith {
		return s.overlaps, nil
	}
	s.overlaps, err = find()
	if s.overlapsWith = s.state; err != nil {
		s.overlapsWith = nil
	}
	return s.overlaps, err
}

// disownedFor is how long the kernel gets to delete a disowned link with its
// namespace: milliseconds, unless a dead process's socket that waits for an
// answer keeps that, for minutes.
const disownedFor = 2 * time.Second

// sweepDisowned deletes the links that the kernel hasn't.
func (n *Network) sweepDisowned(links []int) error {
	n.seen.Lock()
	defer n.seen.Unlock()
	before := n.seen.disowned
	n.seen.disowned = map[int]time.Time{}
	for _, index := range links {
		first, known := before[index]
		if !known {
			first = time.Now()
		}
		n.seen.disowned[index] = first
		if time.Since(first) < disownedFor {
			continue
		}
		if err := deleteLink(netlink.LinkDel, &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: index}}); err != nil {
			return err
		}
	}
	return nil
}

// dump asks the kernel for everything.
func (n *Network) dump() (kernelState, error) {
	p := kernelState{links: map[string]*netlink.LinkAttrs{}, routes: map[hop]bool{}, neighbours: map[hop]net.HardwareAddr{}, local: map[netip.Addr]bool{}, closed: map[netip.Prefix]bool{}}
	links, err := retryDump(netlink.LinkList)
	if err != nil {
		return p, fmt.Errorf("list links: %w", err)
	}
	for _, l := range links {
		a := l.Attrs()
		switch {
		case a.Name == rules.VisitorLink:
			p.visitor = a
		case !strings.HasPrefix(a.Name, rules.LinkPrefix):
		case a.Alias == "":
			p.disowned = append(p.disowned, a.Index)
		case a.Name == hostLink(a.Alias):
			p.links[a.Alias] = a
		}
	}
	if p.leastMTU, err = n.leastMTU(links); err != nil {
		return p, err
	}
	for _, pool := range n.pools() {
		routes, err := listRoutes(family(pool), unix.RT_TABLE_MAIN, unix.RTN_UNICAST)
		if err != nil {
			return p, err
		}
		for _, r := range routes {
			p.routes[hopOf(r.LinkIndex, r.Dst.IP)] = true
		}
		closed, err := listRoutes(family(pool), unix.RT_TABLE_MAIN, unix.RTN_UNREACHABLE)
		if err != nil {
			return p, err
		}
		p.closed[pool] = slices.ContainsFunc(closed, func(r netlink.Route) bool { return r.Dst.String() == pool.String() })
		neighbours, err := retryDump(func() ([]netlink.Neigh, error) { return netlink.NeighList(0, family(pool)) })
		if err != nil {
			return p, fmt.Errorf("list neighbours: %w", err)
		}
		for _, e := range neighbours {
			if e.State&netlink.NUD_PERMANENT != 0 {
				p.neighbours[hopOf(e.LinkIndex, e.IP)] = e.HardwareAddr
			}
		}
	}
	if p.stuck, err = notForwarding(); err != nil {
		return p, err
	}
	local, err := localRoutes(n.pools())
	if err != nil {
		return p, err
	}
	for a := range local {
		p.local[a] = true
	}
	if p.lostGateways, err = n.lostGateways(); err != nil {
		return p, err
	}
	var by []int
	p.fronts, by, err = n.findFronts()
	for _, l := range links {
		if slices.Contains(by, l.Attrs().Index) {
			p.uplinks = append(p.uplinks, l.Attrs())
		}
	}
	return p, err
}

// news tells whether links, addresses, routes, neighbours or the forwarding of
// links have changed: the kernel sends a message for each change.
type news struct {
	socket int
	open   bool
}

// Groups of messages (linux/rtnetlink.h), as bits.
const newsGroups = 1<<(unix.RTNLGRP_LINK-1) | 1<<(unix.RTNLGRP_NEIGH-1) |
	1<<(unix.RTNLGRP_IPV4_IFADDR-1) | 1<<(unix.RTNLGRP_IPV6_IFADDR-1) |
	1<<(unix.RTNLGRP_IPV4_ROUTE-1) | 1<<(unix.RTNLGRP_IPV6_ROUTE-1) | 1<<(unix.RTNLGRP_IPV4_NETCONF-1)

// any takes all messages and reports whether there was any since the last call;
// before the first one there was.
func (n *news) any() (bool, error) {
	if !n.open {
		return true, n.subscribe()
	}
	found := false
	var rest [1]byte // what they say is of no interest
	for {
		_, _, err := unix.Recvfrom(n.socket, rest[:], unix.MSG_DONTWAIT)
		switch {
		case err == nil, errors.Is(err, unix.ENOBUFS): // some were lost
			found = true
		case errors.Is(err, unix.EAGAIN):
			return found, nil
		case !errors.Is(err, unix.EINTR):
			return true, fmt.Errorf("read the kernel's network news: %w", err)
		}
	}
}

func (n *news) subscribe() error {
	s, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink socket: %w", err)
	}
	if err := unix.Bind(s, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: newsGroups}); err != nil {
		return fmt.Errorf("subscribe to the kernel's network news: %w", errors.Join(err, unix.Close(s)))
	}
	n.socket, n.open = s, true
	return nil
}
