package netns

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"dunnage/internal/fault"
	"dunnage/netns/rules"
	"dunnage/spec"
)

// setUpInside configures the replica's end of the link: addresses, the
// neighbour entry of the gateway, routes.
func (n *Network) setUpInside(inside *netlink.Handle, peer netlink.Link, e spec.Endpoint) error {
	if err := mendEnd(inside, peer, hardwareAddr(e.Replica, "replica")); err != nil {
		return err
	}
	if err := n.replaceAddrs(inside, peer, endpointAddrs(e)); err != nil {
		return err
	}
	if err := fault.Do("inside link up", func() error { return inside.LinkSetUp(peer) }); err != nil {
		return fmt.Errorf("set %s up: %w", insideName, err)
	}
	mac := hardwareAddr(e.Replica, "host")
	if err := setNeighbour(inside.NeighSet, peer, gateway4, mac); err != nil {
		return err
	}
	if hasIPv6(e) {
		if err := n.tolerateInside(gateway6, setNeighbour(inside.NeighSet, peer, gateway6, mac)); err != nil {
			return err
		}
	}
	for _, r := range n.insideRoutes(e) {
		r.LinkIndex = peer.Attrs().Index
		err := fault.Do("inside route set", func() error { return inside.RouteReplace(&r) })
		if err := n.tolerateInside(fromIP(r.Dst.IP), err); err != nil {
			return fmt.Errorf("route %v inside: %w", r.Dst, err)
		}
	}
	return nil
}

// tolerateInside is tolerate in a replica's namespace. Its owner may switch
// IPv6 off there by a sysctl of the service.
func (n *Network) tolerateInside(of netip.Addr, err error) error {
	if of.Is6() && errors.Is(err, unix.EACCES) {
		return nil
	}
	return n.tolerate(of, err)
}

func setLoopbackUp(inside *netlink.Handle) error {
	lo, err := inside.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find loopback: %w", err)
	}
	if err := fault.Do("inside loopback up", func() error { return inside.LinkSetUp(lo) }); err != nil {
		return fmt.Errorf("set loopback up: %w", err)
	}
	return nil
}

// replaceAddrs gives the link exactly these addresses. Those of an earlier
// life of the same name go: two replicas must never answer for one address.
func (n *Network) replaceAddrs(inside *netlink.Handle, peer netlink.Link, want []netip.Addr) error {
	surplus := map[netip.Addr]netlink.Addr{}
	have, err := retryDump(func() ([]netlink.Addr, error) { return inside.AddrList(peer, netlink.FAMILY_ALL) })
	if err != nil {
		return fmt.Errorf("list addresses of %s: %w", insideName, err)
	}
	for _, a := range have {
		if addr, ok := netip.AddrFromSlice(a.IP); ok && !addr.Unmap().IsLinkLocalUnicast() {
			surplus[addr.Unmap()] = a
		}
	}
	for _, a := range want {
		delete(surplus, a)
		addr := &netlink.Addr{IPNet: hostNet(a)}
		if a.Is6() {
			addr.Flags = unix.IFA_F_NODAD
		}
		err := fault.Do("inside address set", func() error { return inside.AddrReplace(peer, addr) })
		if err := n.tolerateInside(a, err); err != nil {
			return fmt.Errorf("set address %s: %w", a, err)
		}
	}
	for a, old := range surplus {
		if err := fault.Do("inside address delete", func() error { return inside.AddrDel(peer, &old) }); err != nil {
			return fmt.Errorf("delete address %s: %w", a, err)
		}
	}
	return nil
}

// insideRoutes are the replica's routes in the order that they need each
// other: the gateway, each network's subnet with the address of that network as
// source, the host's own address, and the outside. A replica of internal
// networks only has no default route.
func (n *Network) insideRoutes(e spec.Endpoint) []netlink.Route {
	all := []netlink.Route{{Dst: hostNet(gateway4), Scope: netlink.SCOPE_LINK}}
	for _, a := range e.Addresses {
		all = append(all, via(a.Subnet, a.Addr))
		if a.Addr6.IsValid() {
			all = append(all, via(a.Subnet6, a.Addr6))
		}
	}
	first := e.Addresses[0]
	outside, ok := firstOutside(e)
	if ok {
		first = outside
	}
	all = append(all, n.sourced(first, n.hostAddresses()...)...)
	if ok {
		all = append(all, n.sourced(first, netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0"))...)
	}
	return all
}

// hostAddresses are the host's own addresses in the pools.
func (n *Network) hostAddresses() []netip.Prefix {
	var all []netip.Prefix
	for _, pool := range n.pools() {
		g := rules.Reserved(pool).Gateway
		all = append(all, netip.PrefixFrom(g, g.BitLen()))
	}
	return all
}

// sourced are routes with the address of the destination's family as source;
// none to a family that the replica doesn't have.
func (n *Network) sourced(from spec.EndpointAddress, to ...netip.Prefix) []netlink.Route {
	var all []netlink.Route
	for _, p := range to {
		src := from.Addr
		if p.Addr().Is6() {
			src = from.Addr6
		}
		if src.IsValid() {
			all = append(all, via(p, src))
		}
	}
	return all
}

// firstOutside is the address that outside traffic comes from.
func firstOutside(e spec.Endpoint) (spec.EndpointAddress, bool) {
	for _, a := range e.Addresses {
		if !a.Internal {
			return a, true
		}
	}
	return spec.EndpointAddress{}, false
}

// via is a route through the link-local gateway.
func via(to netip.Prefix, src netip.Addr) netlink.Route {
	gw := gateway4
	if src.Is6() {
		gw = gateway6
	}
	return netlink.Route{Dst: prefixNet(to), Gw: gw.AsSlice(), Src: src.AsSlice(), Flags: int(netlink.FLAG_ONLINK)}
}
