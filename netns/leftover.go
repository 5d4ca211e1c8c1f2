package netns

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Sweep removes what an agent has left of links, routes and addresses and
// nothing wants any more: links that Detach left to the kernel, and the routes
// of another pool with the host's address in it. It returns the routes' names.
// The agent is the only one of its network namespace, so a route with its
// protocol is its own if it has the very form that it makes; others it leaves to
// Surplus. Local routes in the pools' families are Apply's.
func (n *Network) Sweep(ctx context.Context) (removed []string, err error) {
	have, err := n.kernelState()
	if err != nil {
		return nil, err
	}
	if err := n.sweepDisowned(have.disowned); err != nil {
		return nil, err
	}
	surplus, err := n.surplusOnce()
	if err != nil {
		return nil, err
	}
	for _, s := range surplus {
		if !s.made {
			continue
		}
		if err := ctx.Err(); err != nil {
			n.sweepAgain()
			return removed, err
		}
		if err := s.remove(); err != nil {
			n.sweepAgain()
			return removed, err
		}
		removed = append(removed, s.name)
	}
	return removed, nil
}

// SurplusRoute is a route that has the agent's protocol and that nothing wants.
type SurplusRoute struct {
	Name   string // "unreachable 10.9.0.0/16"
	Delete string // the command that deletes it
}

// Surplus lists those of them that Sweep leaves alone: an agent makes none of
// their form.
func (n *Network) Surplus() (all []SurplusRoute, err error) {
	found, err := n.surplus()
	for _, s := range found {
		if !s.made {
			all = append(all, SurplusRoute{Name: s.name, Delete: s.command})
		}
	}
	return all, err
}

type surplus struct {
	route         netlink.Route
	made          bool // it has the form of those that an agent makes
	name, command string
}

// surplusOnce looks again if the kernel's state has changed since.
func (n *Network) surplusOnce() (all []surplus, err error) {
	n.seen.Lock()
	defer n.seen.Unlock()
	if n.seen.state != nil && n.seen.state == n.seen.sweptWith {
		return nil, nil
	}
	if all, err = n.surplus(); err == nil {
		n.seen.sweptWith = n.seen.state
	}
	return all, err
}

// sweepAgain lets the next Sweep look although nothing has changed.
func (n *Network) sweepAgain() {
	n.seen.Lock()
	defer n.seen.Unlock()
	n.seen.sweptWith = nil
}

// surplus lists the routes first, then who wants them, then the links: Attach
// writes a replica's addresses down before its routes, and Detach takes the
// name off its link before it forgets them.
func (n *Network) surplus() ([]surplus, error) {
	families := []int{netlink.FAMILY_V4}
	if _, err := os.Stat("/proc/sys/net/ipv6"); err == nil { // also without a pool of it: there may have been one
		families = append(families, netlink.FAMILY_V6)
	}
	var routes []netlink.Route
	for _, f := range families {
		filter := &netlink.Route{Table: unix.RT_TABLE_UNSPEC, Protocol: routeProtocol}
		found, err := retryDump(func() ([]netlink.Route, error) {
			return netlink.RouteListFiltered(f, filter, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL)
		})
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		routes = append(routes, found...)
	}
	wanted, err := n.wantedAddrs()
	if err != nil {
		return nil, err
	}
	byIndex, err := linksByIndex()
	if err != nil {
		return nil, err
	}
	var all []surplus
	for _, r := range routes {
		if r.Dst == nil { // none is the default route
			r.Dst = prefixNet(netip.PrefixFrom(unspecified(r.Family), 0))
		}
		link := byIndex[r.LinkIndex]
		if !n.wants(r, link, wanted) {
			all = append(all, describeSurplus(r, link))
		}
	}
	return all, nil
}

func unspecified(family int) netip.Addr {
	if family == netlink.FAMILY_V6 {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}

// wantedAddrs are the addresses behind links, by replica. One without a record
// that can be read isn't among them.
func (n *Network) wantedAddrs() (map[string][]netip.Addr, error) {
	wanted := map[string][]netip.Addr{}
	ids, err := n.replicaDirs()
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		addrs, found, err := n.recorded(id)
		if err != nil {
			return nil, err
		}
		if found {
			wanted[id] = addrs
		}
	}
	wanted[visitor] = endpointAddrs(n.visitorEndpoint())
	return wanted, nil
}

func (n *Network) wants(r netlink.Route, link *netlink.LinkAttrs, wanted map[string][]netip.Addr) bool {
	to := netip.PrefixFrom(fromIP(r.Dst.IP), prefixBits(r))
	switch {
	case r.Table == unix.RT_TABLE_LOCAL && r.Type == unix.RTN_LOCAL:
		return slices.ContainsFunc(n.pools(), func(p netip.Prefix) bool { return p.Addr().Is6() == to.Addr().Is6() })
	case r.Table == unix.RT_TABLE_MAIN && r.Type == unix.RTN_UNREACHABLE:
		return slices.Contains(n.pools(), to)
	case r.Table == unix.RT_TABLE_MAIN && r.Type == unix.RTN_UNICAST && to.IsSingleIP() && link != nil:
		addrs, known := wanted[link.Alias]
		if !known { // on its way out, or to be mended
			return isOurs(link)
		}
		return slices.Contains(addrs, to.Addr())
	}
	return false
}

func prefixBits(r netlink.Route) int {
	ones, _ := r.Dst.Mask.Size()
	return ones
}

// describeSurplus tells what an agent makes from what it doesn't: hostRoute, localRoute
// and ensurePool are what makes them.
func describeSurplus(r netlink.Route, link *netlink.LinkAttrs) surplus {
	to := netip.PrefixFrom(fromIP(r.Dst.IP), prefixBits(r))
	plain := len(r.Gw) == 0 && len(r.MultiPath) == 0 && r.Via == nil
	s := surplus{route: r, name: to.String()}
	switch r.Type {
	case unix.RTN_UNREACHABLE:
		s.made = plain && r.Table == unix.RT_TABLE_MAIN && poolSized(to)
	case unix.RTN_LOCAL:
		s.made = plain && r.Table == unix.RT_TABLE_LOCAL && to.IsSingleIP() && len(r.Src) > 0
	case unix.RTN_UNICAST:
		s.made = plain && r.Table == unix.RT_TABLE_MAIN && to.IsSingleIP() && len(r.Src) > 0 && link != nil && isOurs(link)
	}
	kinds := map[int]string{unix.RTN_UNREACHABLE: "unreachable ", unix.RTN_LOCAL: "local ", unix.RTN_BLACKHOLE: "blackhole ", unix.RTN_PROHIBIT: "prohibit "}
	s.name = kinds[r.Type] + s.name
	if link != nil {
		s.name += " dev " + link.Name
	}
	s.command = "ip route del " + s.name
	if to.Addr().Is6() {
		s.command = "ip -6 route del " + s.name
	}
	s.command += fmt.Sprintf(" table %d proto %d", r.Table, routeProtocol)
	return s
}

// poolSized reports whether the prefix can have been a pool.
func poolSized(p netip.Prefix) bool {
	if p.Addr().Is6() {
		return p.Bits() <= 63
	}
	return p.Bits() <= 23
}

// remove deletes the route. That of another pool is what the host's address in
// it is known by, so it goes last.
func (s surplus) remove() error {
	if s.route.Type == unix.RTN_UNREACHABLE {
		lo, err := loopback()
		if err != nil {
			return err
		}
		pool := netip.PrefixFrom(fromIP(s.route.Dst.IP), prefixBits(s.route))
		if err := deleteGateway(lo, pool); err != nil {
			return err
		}
	}
	return deleteRoute(s.route)
}

// replicaDirs lists the replicas that have a directory for their host files:
// Attach makes it first, and Detach removes it last.
func (n *Network) replicaDirs() ([]string, error) {
	entries, err := n.runEntries("replicas")
	var ids []string
	for _, e := range entries {
		if e.IsDir() {
			ids = append(ids, e.Name())
		}
	}
	return ids, err
}
