package netns

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"dunnage/internal/fault"
	"dunnage/netns/rules"
	"dunnage/spec"
)

// insideName is the replica's end of its link.
const insideName = "eth0"

// routeProtocol marks the routes that dunnage made ("ip route show proto 213").
const routeProtocol = 213

// gateways4 and 6 are the replica's next hops. Nobody owns them: the permanent
// neighbour entries lead to the host's end of the link.
var (
	gateway4 = netip.MustParseAddr("169.254.1.1")
	gateway6 = netip.MustParseAddr("fe80::1")
)

// hostLink is the name of the host's end: "dun" and 48 bits of a hash, since
// the kernel allows 15 bytes. The link's alias holds the replica's full name.
// The visitor's has a name that the rules know.
func hostLink(replica string) string {
	if replica == visitor {
		return rules.VisitorLink
	}
	return rules.LinkPrefix + hex.EncodeToString(digest(replica)[:6])
}

func digest(s string) []byte {
	sum := sha256.Sum256([]byte(s))
	return sum[:]
}

// hardwareAddr derives a locally administered unicast address, so that both
// neighbour entries are known before the link exists.
func hardwareAddr(replica, side string) net.HardwareAddr {
	sum := digest(replica + "\x00" + side)
	return append(net.HardwareAddr{0x02}, sum[:5]...)
}

// ensureLink makes the veth pair and sets up both ends.
func (n *Network) ensureLink(ctx context.Context, inside *netlink.Handle, ns *os.File, e spec.Endpoint) error {
	host, peer, err := n.ensurePair(ctx, inside, ns, e.Replica)
	if err != nil {
		return err
	}
	if err := n.ensureMTU(inside, host, peer); err != nil { // before IPv6's settings, which a small one takes away
		return err
	}
	if err := n.setUpInside(inside, peer, e); err != nil {
		return err
	}
	return n.setUpHost(host, e)
}

// ensurePair returns both ends of a whole pair. A half of one, or a pair that
// belongs to another namespace, is deleted first.
func (n *Network) ensurePair(ctx context.Context, inside *netlink.Handle, ns *os.File, replica string) (host, peer netlink.Link, err error) {
	name := hostLink(replica)
	host, hostErr := netlink.LinkByName(name)
	if peer, err = inside.LinkByName(insideName); err == nil && hostErr == nil && peer.Attrs().ParentIndex == host.Attrs().Index {
		return host, peer, nil
	}
	if hostErr == nil {
		if owner := host.Attrs().Alias; owner != "" && owner != replica {
			return nil, nil, fmt.Errorf("link %s belongs to replica %s: rename one of the services", name, owner)
		}
		if err := deleteLink(netlink.LinkDel, host); err != nil {
			return nil, nil, err
		}
	}
	if err == nil {
		if err := deleteLink(inside.LinkDel, peer); err != nil {
			return nil, nil, err
		}
	}
	return n.makePair(ctx, inside, ns, replica)
}

func (n *Network) makePair(ctx context.Context, inside *netlink.Handle, ns *os.File, replica string) (host, peer netlink.Link, err error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	mtu, err := n.linkMTU()
	if err != nil {
		return nil, nil, err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = hostLink(replica), mtu, hardwareAddr(replica, "host")
	attrs.Alias = replica // with the link, so that no crash leaves one without its owner's name
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerMTU, veth.PeerHardwareAddr = insideName, uint32(mtu), hardwareAddr(replica, "replica")
	veth.PeerNamespace = netlink.NsFd(int(ns.Fd()))
	if err := fault.Do("link add", func() error { return netlink.LinkAdd(veth) }); err != nil {
		return nil, nil, fmt.Errorf("make link %s: %w", attrs.Name, err)
	}
	if host, err = netlink.LinkByName(attrs.Name); err != nil {
		return nil, nil, fmt.Errorf("find link %s: %w", attrs.Name, err)
	}
	if peer, err = inside.LinkByName(insideName); err != nil {
		return nil, nil, fmt.Errorf("find %s in the namespace: %w", insideName, err)
	}
	return host, peer, nil
}

func deleteLink(del func(netlink.Link) error, l netlink.Link) error {
	err := fault.Do("link delete", func() error { return del(l) })
	var notFound netlink.LinkNotFoundError
	if err == nil || errors.As(err, &notFound) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return fmt.Errorf("delete link %s: %w", l.Attrs().Name, err)
}

// mendEnd gives an end of a link back what makePair gave it and somebody has changed;
// before its neighbours, which the kernel drops then.
func mendEnd(in *netlink.Handle, end netlink.Link, mac net.HardwareAddr) error {
	a := end.Attrs()
	if !bytes.Equal(a.HardwareAddr, mac) {
		if err := fault.Do("link address", func() error { return in.LinkSetHardwareAddr(end, mac) }); err != nil {
			return fmt.Errorf("set the hardware address of %s to %s: %w", a.Name, mac, err)
		}
	}
	if a.RawFlags&unix.IFF_NOARP != 0 {
		if err := fault.Do("link arp", func() error { return in.LinkSetARPOn(end) }); err != nil {
			return fmt.Errorf("set ARP of %s on: %w", a.Name, err)
		}
	}
	return nil
}

// setUpHost configures the host's end. It never answers for addresses of
// others, so strict reverse path filtering fits; route_localnet lets the
// answers to 127.0.0.1 back in (rules keep everything else from it).
func (n *Network) setUpHost(host netlink.Link, e spec.Endpoint) error {
	name := host.Attrs().Name
	if err := mendEnd(new(netlink.Handle), host, hardwareAddr(e.Replica, "host")); err != nil {
		return err
	}
	err := setAll([]sysctl{
		{"net/ipv4/conf/" + name + "/rp_filter", "1"},
		routeLocalnet(name),
		linkForwarding(name),
		{"net/ipv6/conf/" + name + "/addr_gen_mode", "1"},
		{"net/ipv6/conf/" + name + "/accept_ra", "0"},
	})
	if err != nil {
		return err
	}
	if hasIPv6(e) && n.lacksIPv6() == "" { // last: it brings addresses as the others say
		if err := n.tolerate(gateway6, setAll([]sysctl{disableIPv6(name)})); err != nil {
			return err
		}
	}
	if host.Attrs().Alias != e.Replica {
		if err := fault.Do("link own", func() error { return netlink.LinkSetAlias(host, e.Replica) }); err != nil {
			return fmt.Errorf("name the owner of link %s: %w", name, err)
		}
	}
	if host.Attrs().Flags&net.FlagUp == 0 {
		if err := fault.Do("link up", func() error { return netlink.LinkSetUp(host) }); err != nil {
			return fmt.Errorf("set link %s up: %w", name, err)
		}
	}
	return n.hostRoutes(host, e)
}

func routeLocalnet(link string) sysctl {
	return sysctl{"net/ipv4/conf/" + link + "/route_localnet", "1"}
}

// linkForwarding is without effect on IPv6: there, the setting of all links decides.
func linkForwarding(link string) sysctl {
	return sysctl{"net/ipv4/conf/" + link + "/forwarding", "1"}
}

// hostRoutes leads each address of the replica to its link. The source of the
// host's own connections is the gateway's address.
func (n *Network) hostRoutes(host netlink.Link, e spec.Endpoint) error {
	mac := hardwareAddr(e.Replica, "replica")
	for _, a := range ofFamilies(n.usable(), endpointAddrs(e)) {
		if err := n.tolerate(a, n.hostRoute(host, a, mac)); err != nil {
			return err
		}
	}
	return nil
}

func (n *Network) hostRoute(host netlink.Link, a netip.Addr, mac net.HardwareAddr) error {
	if err := setNeighbour(netlink.NeighSet, host, a, mac); err != nil {
		return err
	}
	r := netlink.Route{LinkIndex: host.Attrs().Index, Dst: hostNet(a), Src: n.gateway(a).AsSlice(), Protocol: routeProtocol}
	if a.Is4() {
		r.Scope = netlink.SCOPE_LINK
	}
	if err := fault.Do("host route set", func() error { return netlink.RouteReplace(&r) }); err != nil {
		return fmt.Errorf("route %s to link %s: %w", a, host.Attrs().Name, err)
	}
	return nil
}

// gateway is the host's address for connections to a.
func (n *Network) gateway(a netip.Addr) netip.Addr {
	if a.Is4() {
		return rules.Reserved(n.cfg.Pool).Gateway
	}
	return rules.Reserved(n.cfg.Pool6).Gateway
}

func endpointAddrs(e spec.Endpoint) []netip.Addr {
	var all []netip.Addr
	for _, a := range e.Addresses {
		all = append(all, a.Addr)
		if a.Addr6.IsValid() {
			all = append(all, a.Addr6)
		}
	}
	return all
}

func setNeighbour(set func(*netlink.Neigh) error, l netlink.Link, a netip.Addr, mac net.HardwareAddr) error {
	err := fault.Do("neighbour set", func() error {
		return set(&netlink.Neigh{LinkIndex: l.Attrs().Index, State: netlink.NUD_PERMANENT, IP: a.AsSlice(), HardwareAddr: mac})
	})
	if err != nil {
		return fmt.Errorf("set neighbour %s on %s: %w", a, l.Attrs().Name, err)
	}
	return nil
}

// hostNet is the prefix of a single address.
func hostNet(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}

func prefixNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Masked().Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
