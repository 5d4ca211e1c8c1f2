package netns

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"dunnage/netns/rules"
)

// Fronts are the host's own addresses that clients of other machines use, at
// most one a family, IPv4 first: that of the device with the default route, or
// else the first global one. A host without an IPv4 address has the gateway's.
func (n *Network) Fronts(context.Context) ([]netip.Addr, error) {
	have, err := n.kernelState()
	return ofFamilies(n.usable(), have.fronts), err
}

// findFronts also returns the indexes of the links by which IPv4 clients come.
func (n *Network) findFronts() (all []netip.Addr, by []int, err error) {
	list, err := retryDump(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, nil, fmt.Errorf("list the host's addresses: %w", err)
	}
	for _, pool := range n.pools() {
		route, err := defaultRoute(family(pool))
		if err != nil {
			return nil, nil, err
		}
		front := n.front(list, route, pool.Addr().Is6())
		if pool.Addr().Is4() {
			if route != nil {
				by = append(by, route.LinkIndex)
			}
			if i := slices.IndexFunc(list, func(a netlink.Addr) bool { return fromIP(a.IP) == front }); i >= 0 {
				by = append(by, list[i].LinkIndex)
			}
		}
		if !front.IsValid() && pool.Addr().Is4() {
			front = rules.Reserved(pool).Gateway
		}
		if front.IsValid() {
			all = append(all, front)
		}
	}
	return all, by, nil
}

// front picks the address of a family; route is nil without a default one.
func (n *Network) front(list []netlink.Addr, route *netlink.Route, v6 bool) netip.Addr {
	var found []netlink.Addr
	for _, a := range list {
		if addr := fromIP(a.IP); addr.Is6() == v6 && n.isFront(a, addr) {
			found = append(found, a)
		}
	}
	// The kernel's order within a device is the order of preference.
	slices.SortStableFunc(found, func(a, b netlink.Addr) int { return cmp.Compare(a.LinkIndex, b.LinkIndex) })
	var first netip.Addr
	for _, a := range found {
		addr := fromIP(a.IP)
		if route != nil && a.LinkIndex == route.LinkIndex && (route.Src == nil || fromIP(route.Src) == addr) {
			return addr
		}
		if !first.IsValid() {
			first = addr
		}
	}
	return first
}

// isFront reports whether a client may know the address: it is global, in use,
// and not one that dunnage gave the host.
func (n *Network) isFront(a netlink.Addr, addr netip.Addr) bool {
	const unusable = unix.IFA_F_DEPRECATED | unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED | unix.IFA_F_TEMPORARY
	unsettled := addr.Is6() && a.Flags&unusable != 0
	ours := slices.ContainsFunc(n.pools(), func(p netip.Prefix) bool { return p.Contains(addr) })
	return a.Scope == int(netlink.SCOPE_UNIVERSE) && addr.IsGlobalUnicast() && !unsettled && !ours
}

// defaultRoute is the one of the family that the kernel prefers, nil without.
func defaultRoute(family int) (*netlink.Route, error) {
	routes, err := retryDump(func() ([]netlink.Route, error) { return netlink.RouteList(nil, family) })
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	var best *netlink.Route
	for i, r := range routes {
		isDefault := r.Dst == nil || r.Dst.IP.IsUnspecified() && isZero(r.Dst.Mask)
		if isDefault && r.LinkIndex > 0 && (best == nil || r.Priority < best.Priority) {
			best = &routes[i]
		}
	}
	return best, nil
}

func isZero(m net.IPMask) bool {
	ones, _ := m.Size()
	return ones == 0
}
