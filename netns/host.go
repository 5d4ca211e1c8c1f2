package netns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"dunnage/internal/fault"
	"dunnage/netns/rules"
)

// ensureHost gives the host its address in each pool and makes hold and refuse
// local, so that packets sent there meet INPUT's rules. What is left of the
// pool is unreachable: an unused address must not leave by the default route.
// A failure of IPv6 alone isn't one of the whole.
func (n *Network) ensureHost(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	n.host.Lock()
	defer n.host.Unlock()
	lo, err := loopback()
	if err != nil {
		return err
	}
	if lo.Attrs().RawFlags&unix.IFF_UP == 0 {
		if err := fault.Do("host loopback up", func() error { return netlink.LinkSetUp(lo) }); err != nil {
			return fmt.Errorf("set loopback up: %w", err)
		}
	}
	for _, pool := range n.usable() {
		err := n.ensureForwarding(pool)
		if err == nil {
			err = ensurePool(lo, pool)
		}
		if err := n.tolerate(pool.Addr(), err); err != nil {
			return err
		}
	}
	return nil
}

func loopback() (netlink.Link, error) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return nil, fmt.Errorf("find loopback: %w", err)
	}
	return lo, nil
}

func ensurePool(lo netlink.Link, pool netip.Prefix) error {
	r := rules.Reserved(pool)
	addr := &netlink.Addr{IPNet: hostNet(r.Gateway), Scope: int(netlink.SCOPE_UNIVERSE)}
	if pool.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	if err := fault.Do("host address set", func() error { return netlink.AddrReplace(lo, addr) }); err != nil {
		return fmt.Errorf("set the host's address %s: %w", r.Gateway, err)
	}
	for _, a := range []netip.Addr{r.Hold, r.Refuse} {
		if err := addLocal(lo, a, r.Gateway); err != nil {
			return err
		}
	}
	rest := netlink.Route{Dst: prefixNet(pool), Type: unix.RTN_UNREACHABLE, Protocol: routeProtocol}
	if err := fault.Do("pool route set", func() error { return netlink.RouteReplace(&rest) }); err != nil {
		return fmt.Errorf("make the rest of %s unreachable: %w", pool, err)
	}
	return nil
}

// addLocal makes a the host's own without giving it to an interface: the
// kernel looks a destination up before OUTPUT's DNAT rewrites it.
func addLocal(lo netlink.Link, a, source netip.Addr) error {
	if err := fault.Do("local route set", func() error { return netlink.RouteReplace(localRoute(lo, a, source)) }); err != nil {
		return fmt.Errorf("make %s local: %w", a, err)
	}
	return nil
}

func localRoute(lo netlink.Link, a, source netip.Addr) *netlink.Route {
	return &netlink.Route{
		LinkIndex: lo.Attrs().Index, Dst: hostNet(a), Src: source.AsSlice(), Scope: netlink.SCOPE_HOST,
		Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL, Protocol: routeProtocol,
	}
}

// maxVethMTU is the largest that a veth takes; loopback's is one more.
const maxVethMTU = 65535

// Bounds of what a link of ours needs.
const (
	leastIPv6MTU = 1280 // IPv6 leaves a link with a smaller one
	usualMTU     = 1500
)

// linkMTU is what a new link gets.
func (n *Network) linkMTU() (int, error) {
	mtu, err := hostMTU()
	if n.cfg.Pool6.IsValid() {
		mtu = max(mtu, leastIPv6MTU)
	}
	return mtu, err
}

// leastMTU is what each of our links needs: the host's MTU may have become
// larger or smaller since a link was made, and both are well up to the usual.
// It is asked for only when one of the links may have less.
func (n *Network) leastMTU(links []netlink.Link) (int, error) {
	small := func(l netlink.Link) bool { return isOurs(l.Attrs()) && l.Attrs().MTU < usualMTU }
	if !slices.ContainsFunc(links, small) {
		return 0, nil
	}
	mtu, err := n.linkMTU()
	return min(mtu, usualMTU), err
}

// ensureMTU gives the host's end of a link that somebody has narrowed what a new one
// gets, and the replica's end the same as that: an end drops what is larger than its
// own MTU, and tells nobody.
func (n *Network) ensureMTU(inside *netlink.Handle, host, peer netlink.Link) error {
	mtu := host.Attrs().MTU
	if mtu < usualMTU {
		fresh, err := n.linkMTU()
		if err != nil {
			return err
		}
		if mtu < min(fresh, usualMTU) {
			mtu = fresh
		}
	}
	if err := setMTU(netlink.LinkSetMTU, host, mtu); err != nil {
		return err
	}
	return setMTU(inside.LinkSetMTU, peer, mtu)
}

func setMTU(set func(netlink.Link, int) error, l netlink.Link, mtu int) error {
	if l.Attrs().MTU == mtu {
		return nil
	}
	if err := fault.Do("link mtu", func() error { return set(l, mtu) }); err != nil {
		return fmt.Errorf("set the MTU of %s to %d: %w", l.Attrs().Name, mtu, err)
	}
	return nil
}

// isOurs reports whether a link of the host is the end of one of ours. Somebody
// may have renamed it: its alias is its owner's name, and its hardware address
// is made from that. Detach takes the alias off; then there is the name alone.
func isOurs(link *netlink.LinkAttrs) bool {
	if link.Alias != "" && bytes.Equal(link.HardwareAddr, hardwareAddr(link.Alias, "host")) {
		return true
	}
	return strings.HasPrefix(link.Name, rules.LinkPrefix) || link.Name == rules.VisitorLink
}

// hostMTU is the MTU of the device with the default route, so that a replica's
// packets fit where they leave; 1500 without one.
func hostMTU() (int, error) {
	route, err := defaultRoute(netlink.FAMILY_V4)
	if err != nil {
		return 0, err
	}
	if route == nil {
		return 1500, nil
	}
	l, err := netlink.LinkByIndex(route.LinkIndex)
	if err != nil {
		return 0, fmt.Errorf("find the device of the default route: %w", err)
	}
	return min(l.Attrs().MTU, maxVethMTU), nil
}

// retryDump repeats a listing that a concurrent change interrupted. Five times
// in a row is not bad luck any more.
func retryDump[T any](list func() (T, error)) (T, error) {
	var (
		all T
		err error
	)
	for range 5 {
		if all, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return all, err
}
