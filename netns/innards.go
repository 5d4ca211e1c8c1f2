package netns

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"dunnage/spec"
)

// innardsEvery is how often a replica's namespace is looked into: the kernel
// sends no news of it, and to ask takes a tenth of a millisecond.
const innardsEvery = 30 * time.Second

// innards is what was missing inside of replicas' namespaces when they were
// looked into last.
type innards struct {
	mu       sync.Mutex
	replicas map[string]innard
}

type innard struct {
	at      time.Time
	missing string // empty = nothing
}

// innardsOf looks into the replica's namespace, if the last look is some time
// ago or something was missing then. One that can't be looked into is on its way
// out, or the next look from outside tells what is wrong with it.
func (n *Network) innardsOf(replica string, now time.Time) (missing string) {
	n.innards.mu.Lock()
	defer n.innards.mu.Unlock()
	last, known := n.innards.replicas[replica]
	if known && last.missing == "" && now.Sub(last.at) < innardsEvery {
		return ""
	}
	missing, err := n.lookInside(replica)
	if err != nil {
		return ""
	}
	if n.innards.replicas == nil {
		n.innards.replicas = map[string]innard{}
	}
	if !known { // those of the same moment aren't looked into at the same moment for ever
		now = now.Add(-time.Duration(digest(replica)[0]) * innardsEvery / 256)
	}
	n.innards.replicas[replica] = innard{now, missing}
	return missing
}

func (n *Network) forgetInnards(replica string) {
	n.innards.mu.Lock()
	defer n.innards.mu.Unlock()
	delete(n.innards.replicas, replica)
}

// lookInside names the first that is missing. A program in the replica that may
// change its network, for a VPN for example, may have put a default route of
// its own in place of ours: that is its own affair.
func (n *Network) lookInside(replica string) (missing string, err error) {
	b, err := os.ReadFile(n.addressesPath(replica))
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
