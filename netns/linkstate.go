package netns

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The least MTUs with which the families work (RFC 791, RFC 8200).
const (
	leastMTU4 = 576
	leastMTU6 = 1280
)

// mostNeighbours bounds the neighbours that are told of one by one.
const mostNeighbours = 3

// linkDoubts tells of what a link that clients are behind has that may keep their
// packets or the answers back, which no rule shows: an MTU that is too small, no ARP,
// a neighbour that somebody has set by hand or that doesn't answer. The client is
// zero if it isn't known: then any neighbour may be the one.
func linkDoubts(name string, client netip.Addr, v6 bool) (out []string, err error) {
	link, err := netlink.LinkByName(name)
	if err != nil || link.Attrs().Flags&net.FlagLoopback != 0 || isOurs(link.Attrs()) {
		return nil, nil //nolint:nilerr // it has gone meanwhile
	}
	a, least := link.Attrs(), leastMTU4
	if v6 {
		least = leastMTU6
	}
	if a.MTU < least {
		out = append(out, fmt.Sprintf("link %s has an MTU of %d, which is less than %d: what is larger doesn't pass; `ip link set %s mtu 1500` is usual", name, a.MTU, least, name))
	}
	// Those without broadcasts (tunnels) and the kernel's own switches need none.
	if a.RawFlags&unix.IFF_NOARP != 0 && a.Flags&net.FlagBroadcast != 0 && slices.Contains([]string{"device", "veth", "vlan", "bridge", "bond", "macvlan"}, link.Type()) {
		out = append(out, fmt.Sprintf("link %s has ARP off: the host finds nobody there, and isn't found; `ip link set %s arp on`", name, name))
	}
	doubts, err := neighbourDoubts(a, client, v6)
	return append(out, doubts...), err
}

func neighbourDoubts(link *netlink.LinkAttrs, client netip.Addr, v6 bool) (out []string, err error) {
	kind, gateway := netlink.FAMILY_V4, netip.Addr{}
	if v6 {
		kind = netlink.FAMILY_V6
	}
	hop := nextHop(client)
	if !client.IsValid() {
		if route, err := defaultRoute(kind); err == nil && route != nil && route.LinkIndex == link.Index {
			gateway, _ = netip.AddrFromSlice(route.Gw)
		}
	}
	all, err := retryDump(func() ([]netlink.Neigh, error) { return netlink.NeighList(link.Index, kind) })
	if err != nil {
		return nil, fmt.Errorf("list the neighbours at %s: %w", link.Name, err)
	}
	more := 0
	for _, n := range all {
		addr, _ := netip.AddrFromSlice(n.IP)
		addr = addr.Unmap()
		byHand, dead := n.State&netlink.NUD_PERMANENT != 0, n.State&netlink.NUD_FAILED != 0
		switch {
		case addr.IsMulticast(), hop.IsValid() && addr != hop:
			continue
		case dead && (addr == hop || addr == gateway.Unmap()):
			out = append(out, fmt.Sprintf("neighbour %s at %s doesn't answer when the host looks for it: no answer reaches it, or who is behind it", addr, link.Name))
		case byHand && len(out) == mostNeighbours:
			more++
		case byHand:
			out = append(out, fmt.Sprintf("neighbour %s at %s was set by hand (%s): if that isn't its address, no answer reaches it; `ip neigh del %s dev %s` has the host look for it", addr, link.Name, n.HardwareAddr, addr, link.Name))
		}
	}
	if more > 0 {
		out = append(out, fmt.Sprintf("%d more neighbours at %s were set by hand: `ip neigh show nud permanent dev %s`", more, link.Name, link.Name))
	}
	return out, nil
}

// nextHop is who the host hands what is for an address to: a router, or the address
// itself; zero = not known.
func nextHop(to netip.Addr) netip.Addr {
	if !to.IsValid() {
		return to
	}
	found, err := netlink.RouteGet(to.AsSlice())
	if err != nil || len(found) == 0 {
		return netip.Addr{}
	}
	if gw, ok := netip.AddrFromSlice(found[0].Gw); ok {
		return gw.Unmap()
	}
	return to
}
