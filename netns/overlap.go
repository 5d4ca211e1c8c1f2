package netns

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"dunnage/netns/rules"
)

// surroundings are what the host has around it in one address family.
type surroundings struct {
	links      map[int]*netlink.LinkAttrs // by index
	addrs      []netlink.Addr
	routes     []netlink.Route
	neighbours []netlink.Neigh
}

// Overlaps says what of the host's own addresses, networks, routes and
// neighbours is in a pool, one line for each pool: the agent's routes would cut
// the host off from it. What an agent made itself is none of it. A wider route
// by way of a gateway isn't either: pools are cut from such.
func (n *Network) Overlaps() ([]string, error) {
	byIndex, err := linksByIndex()
	if err != nil {
		return nil, err
	}
	var all []string
	for _, pool := range n.pools() {
		s := surroundings{links: byIndex}
		if s.addrs, err = retryDump(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, family(pool)) }); err != nil {
			return nil, fmt.Errorf("list the host's addresses: %w", err)
		}
		if s.routes, err = retryDump(func() ([]netlink.Route, error) { return netlink.RouteList(nil, family(pool)) }); err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		if s.neighbours, err = retryDump(func() ([]netlink.Neigh, error) { return netlink.NeighList(0, family(pool)) }); err != nil {
			return nil, fmt.Errorf("list neighbours: %w", err)
		}
		if found := s.within(pool); len(found) > 0 {
			text := fmt.Sprintf("pool %s overlaps %s", pool, found[0])
			if len(found) > 1 {
				text += fmt.Sprintf(" and %d more", len(found)-1)
			}
			all = append(all, text)
		}
	}
	return all, nil
}

// within lists what is in the pool: what is plainest comes first.
func (s surroundings) within(pool netip.Prefix) (found []string) {
	add := func(format string, args ...any) {
		if text := fmt.Sprintf(format, args...); !slices.Contains(found, text) {
			found = append(found, text)
		}
	}
	foreign := func(link int) bool { return s.links[link] == nil || !isOurs(s.links[link]) }
	name := func(link int) string {
		if l := s.links[link]; l != nil {
			return l.Name
		}
		return ""
	}
	for _, a := range s.addrs {
		addr := fromIP(a.IP)
		ones, _ := a.Mask.Size()
		switch {
		case !foreign(a.LinkIndex), name(a.LinkIndex) == "lo" && addr == rules.Reserved(pool).Gateway:
		case pool.Contains(addr):
			add("the host's address %s of link %s", addr, name(a.LinkIndex))
		case netip.PrefixFrom(addr, ones).Overlaps(pool):
			add("the network %s of the host's link %s", netip.PrefixFrom(addr, ones).Masked(), name(a.LinkIndex))
		}
	}
	for _, r := range s.routes {
		if r.Protocol == routeProtocol || r.Type != unix.RTN_UNICAST || !foreign(r.LinkIndex) {
			continue
		}
		to, text := netip.Prefix{}, "by default"
		if r.Dst != nil {
			ones, _ := r.Dst.Mask.Size()
			to = netip.PrefixFrom(fromIP(r.Dst.IP), ones)
		}
		if to.IsValid() && to.Bits() > 0 {
			text = "to " + to.String()
		}
		hops := []netip.Addr{fromIP(r.Gw)}
		for _, h := range r.MultiPath {
			hops = append(hops, fromIP(h.Gw))
		}
		for _, h := range hops {
			if h.IsValid() && pool.Contains(h) {
				add("the gateway %s of the route %s", h, text)
			}
		}
		ours := to.IsValid() && name(r.LinkIndex) == "lo" && to.Addr() == rules.Reserved(pool).Gateway
		if to.IsValid() && to.Bits() >= pool.Bits() && pool.Contains(to.Addr()) && !ours {
			add("the route %s by link %s", text, name(r.LinkIndex))
		}
	}
	const gone = netlink.NUD_FAILED | netlink.NUD_INCOMPLETE | netlink.NUD_NOARP
	for _, e := range s.neighbours {
		if a := fromIP(e.IP); foreign(e.LinkIndex) && e.State&gone == 0 && e.State != 0 && pool.Contains(a) {
			add("the neighbour %s of link %s", a, name(e.LinkIndex))
		}
	}
	return found
}

// linksByIndex are the host's links; routes and neighbours name them by index.
func linksByIndex() (map[int]*netlink.LinkAttrs, error) {
	links, err := retryDump(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	byIndex := map[int]*netlink.LinkAttrs{}
	for _, l := range links {
		byIndex[l.Attrs().Index] = l.Attrs()
	}
	return byIndex, nil
}
