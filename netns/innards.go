package netns

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"dunnage/internal/regular"
	"dunnage/spec"
)

// innardsEvery is how often a replica's namespace is looked into without news of
// its link: other news of it aren't asked for, since a program there may change
// addresses and routes of its own all the time, and to look takes a fifth of a
// millisecond.
const innardsEvery = 30 * time.Second

// innards is what was missing inside of replicas' namespaces when they were
// looked into last.
type innards struct {
	mu       sync.Mutex
	replicas map[string]innard
	news     *os.File // see subscribeInside; nil = not yet
	message  [4096]byte
}

type innard struct {
	at        time.Time // zero = there was news since
	missing   string    // empty = nothing
	namespace int       // its number
	mtu       int       // of the link's end here
}

// innardsOf looks into the replica's namespace, if the last look is some time
// ago, something was missing then, or there is news of its link. One that can't
// be looked into is on its way out, or the next look from outside tells what is
// wrong with it.
func (n *Network) innardsOf(replica string, link *netlink.LinkAttrs, now time.Time) (missing string) {
	n.innards.mu.Lock()
	defer n.innards.mu.Unlock()
	last, known := n.innards.replicas[replica]
	if known && last.missing == "" && last.namespace == link.NetNsID && last.mtu == link.MTU && now.Sub(last.at) < innardsEvery {
		return ""
	}
	missing, err := n.lookInside(replica, link.MTU)
	if err != nil {
		return ""
	}
	if n.innards.replicas == nil {
		n.innards.replicas = map[string]innard{}
	}
	if !known { // those of the same moment aren't looked into at the same moment for ever
		now = now.Add(-time.Duration(digest(replica)[0]) * innardsEvery / 256)
	}
	n.innards.replicas[replica] = innard{now, missing, link.NetNsID, link.MTU}
	return missing
}

// hear notes of which namespaces there is news. Where the kernel can't be asked
// for that, each is looked into all the same, later.
func (i *innards) hear() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.news == nil {
		i.news, _ = subscribeInside()
	}
	if i.news == nil {
		return
	}
	for {
		about, err := readInside(i.news, i.message[:], true)
		lost := errors.Is(err, unix.ENOBUFS)
		if err != nil && !lost && !errors.Is(err, unix.EINTR) {
			return // no more
		}
		for id, in := range i.replicas {
			if lost || about >= 0 && in.namespace == about {
				in.at = time.Time{}
				i.replicas[id] = in
			}
		}
	}
}

func (n *Network) forgetInnards(replica string) {
	n.innards.mu.Lock()
	defer n.innards.mu.Unlock()
	delete(n.innards.replicas, replica)
}

// lookInside names the first that is missing or changed; mtu is that of the link's
// end here. A program in the replica that may change its network, for a VPN for
// example, may have put a default route of its own in place of ours: that is its
// own affair.
func (n *Network) lookInside(replica string, mtu int) (missing string, err error) {
	b, err := regular.ReadFile(n.addressesPath(replica))
	if err != nil {
		return "", fmt.Errorf("read recorded addresses: %w", err)
	}
	e := spec.Endpoint{Replica: replica}
	if err := json.Unmarshal(b, &e.Addresses); err != nil {
		return "", fmt.Errorf("read recorded addresses: %w", err)
	}
	ns, err := os.Open(n.Namespace(replica))
	if err != nil {
		return "", fmt.Errorf("open namespace: %w", err)
	}
	defer ns.Close()
	inside, err := netlink.NewHandleAt(vnetns.NsHandle(ns.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return "", fmt.Errorf("open netlink in the namespace: %w", err)
	}
	defer inside.Close()
	peer, err := inside.LinkByName(insideName)
	if err == nil { // a program there may have renamed it: what goes through it then is its own affair
		missing = peerDamage(peer.Attrs(), replica, mtu)
	}
	if missing != "" {
		return missing, nil
	}
	addrs, err := retryDump(func() ([]netlink.Addr, error) { return inside.AddrList(nil, netlink.FAMILY_V4) })
	if err != nil {
		return "", fmt.Errorf("list addresses inside: %w", err)
	}
	have := map[netip.Addr]bool{}
	for _, a := range addrs {
		have[fromIP(a.IP)] = true
	}
	for _, a := range e.Addresses {
		if !have[a.Addr] {
			return fmt.Sprintf("address %s of %s gone, inside its namespace", a.Addr, replica), nil
		}
	}
	if peer != nil {
		if missing, err = neighbourInside(inside, peer, replica); missing != "" || err != nil {
			return missing, err
		}
	}
	if _, outside := firstOutside(e); !outside {
		return "", nil
	}
	routes, err := retryDump(func() ([]netlink.Route, error) { return inside.RouteList(nil, netlink.FAMILY_V4) })
	if err != nil {
		return "", fmt.Errorf("list routes inside: %w", err)
	}
	for _, r := range routes {
		if ones := 0; r.Dst == nil || r.Dst.IP.IsUnspecified() {
			if r.Dst != nil {
				ones, _ = r.Dst.Mask.Size()
			}
			if ones <= 1 { // two halves are one as well
				return "", nil
			}
		}
	}
	return fmt.Sprintf("default route of %s gone, inside its namespace", replica), nil
}

// peerDamage names what is changed of the replica's end of its link, empty = nothing.
func peerDamage(peer *netlink.LinkAttrs, replica string, mtu int) string {
	if peer.Flags&net.FlagUp == 0 { // since the look from outside
		return fmt.Sprintf("%s of %s down, inside its namespace", insideName, replica)
	}
	if what := endDamage(peer, replica, hardwareAddr(replica, "replica")); what != "" {
		return what + ", inside its namespace"
	}
	if peer.MTU != mtu {
		return fmt.Sprintf("MTU of %s of %s is %d instead of %d, inside its namespace", insideName, replica, peer.MTU, mtu)
	}
	return ""
}

// neighbourInside tells if the gateway's neighbour entry isn't as Attach made it.
func neighbourInside(inside *netlink.Handle, peer netlink.Link, replica string) (missing string, err error) {
	neighbours, err := retryDump(func() ([]netlink.Neigh, error) { return inside.NeighList(peer.Attrs().Index, netlink.FAMILY_V4) })
	if err != nil {
		return "", fmt.Errorf("list neighbours inside: %w", err)
	}
	for _, e := range neighbours {
		if fromIP(e.IP) == gateway4 && e.State&netlink.NUD_PERMANENT != 0 && bytes.Equal(e.HardwareAddr, hardwareAddr(replica, "host")) {
			return "", nil
		}
	}
	return fmt.Sprintf("neighbour %s of %s gone or another, inside its namespace", gateway4, replica), nil
}

// endDamage names what somebody has changed of an end of a link that makes packets
// miss it, empty = nothing: the neighbours at the other end are permanent, and the
// kernel drops those of its own with each such change.
func endDamage(end *netlink.LinkAttrs, replica string, mac net.HardwareAddr) string {
	switch {
	case !bytes.Equal(end.HardwareAddr, mac):
		return fmt.Sprintf("hardware address of link %s of %s is %s instead of %s", end.Name, replica, end.HardwareAddr, mac)
	case end.RawFlags&unix.IFF_NOARP != 0:
		return fmt.Sprintf("ARP of link %s of %s off", end.Name, replica)
	}
	return ""
}
