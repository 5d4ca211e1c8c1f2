package netns

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"dunnage/spec"
)

// Attach makes the replica's namespace, link, routes and host files, or
// completes what is missing of them. Order: the files come first, because they
// record the addresses; whatever a crash leaves behind is listed by Attached.
func (n *Network) Attach(ctx context.Context, e spec.Endpoint) error {
	if !n.cfg.Pool6.IsValid() { // the addresses are of a time when there was one
		e.Addresses = withoutIPv6(e.Addresses)
	}
	if err := n.checkEndpoint(e); err != nil {
		return fmt.Errorf("attach %s: %w", e.Replica, err)
	}
	defer n.replicas.Lock(e.Replica)()
	if err := n.attach(ctx, e); err != nil {
		return fmt.Errorf("attach %s: %w", e.Replica, err)
	}
	return nil
}

func (n *Network) attach(ctx context.Context, e spec.Endpoint) error {
	if err := n.writeFiles(e); err != nil {
		return err
	}
	if err := n.ensureHost(ctx); err != nil {
		return err
	}
	ns, err := n.openNamespace(ctx, e)
	if err != nil {
		return err
	}
	defer ns.Close()
	if e.Network == spec.NetworkHost {
		return nil
	}
	return n.setUp(ctx, ns, e)
}

// setUp makes what belongs into the namespace, and the link that leads there.
func (n *Network) setUp(ctx context.Context, ns *os.File, e spec.Endpoint) error {
	inside, err := netlink.NewHandleAt(vnetns.NsHandle(ns.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink in the namespace: %w", err)
	}
	defer inside.Close()
	if err := setLoopbackUp(inside); err != nil || e.Network == spec.NetworkNone {
		return err
	}
	return n.ensureLink(ctx, inside, ns, e)
}

func (n *Network) checkEndpoint(e spec.Endpoint) error {
	if err := checkName(e.Replica); err != nil {
		return err
	}
	switch e.Network {
	case spec.NetworkOwn:
		if len(e.Addresses) == 0 {
			return fmt.Errorf("%w: it has no address", spec.ErrRefused)
		}
	case spec.NetworkHost, spec.NetworkNone:
		if len(e.Addresses) > 0 {
			return fmt.Errorf("%w: in network mode %s it can't have addresses", spec.ErrRefused, e.Network)
		}
	default:
		return fmt.Errorf("%w: network mode %q gives it no place of its own", spec.ErrRefused, e.Network)
	}
	for _, a := range e.Addresses {
		if !n.cfg.Pool.Contains(a.Addr) || !a.Subnet.Contains(a.Addr) {
			return fmt.Errorf("%w: address %s isn't in subnet %s of pool %s", spec.ErrRefused, a.Addr, a.Subnet, n.cfg.Pool)
		}
		if a.Addr6.IsValid() && (!n.cfg.Pool6.Contains(a.Addr6) || !a.Subnet6.Contains(a.Addr6)) {
			return fmt.Errorf("%w: address %s isn't in subnet %s of pool %s", spec.ErrRefused, a.Addr6, a.Subnet6, n.cfg.Pool6)
		}
	}
	return nil
}

// checkName keeps a replica's name from leading out of the run directory.
func checkName(replica string) error {
	if replica == "" || replica != filepath.Base(replica) || strings.HasPrefix(replica, ".") {
		return fmt.Errorf("replica name %q: %w: it can't be a file name", replica, spec.ErrRefused)
	}
	return nil
}

// addressesFile records the replica's addresses, for Detach: it is only told
// the name, and the link may be gone.
const addressesFile = "addresses.json"

func (n *Network) recordAddresses(e spec.Endpoint) error {
	b, err := json.Marshal(e.Addresses)
	if err != nil {
		return fmt.Errorf("encode addresses: %w", err)
	}
	return replaceFile(n.addressesPath(e.Replica), b)
}

// recorded returns the addresses that Attach wrote down, which may be none. No
// record is no error, and one that somebody damaged counts as none.
func (n *Network) recorded(replica string) (addrs []netip.Addr, found bool, err error) {
	addrs, err = n.addresses.Read(n.addressesPath(replica), decodeAddresses)
	var damaged *json.SyntaxError
	switch {
	case errors.Is(err, os.ErrNotExist), errors.As(err, &damaged):
		return nil, false, nil
	case err != nil:
		return nil, false, fmt.Errorf("read recorded addresses: %w", err)
	}
	return addrs, true, nil
}

func (n *Network) addressesPath(replica string) string {
	return filepath.Join(n.dir(replica), addressesFile)
}

func decodeAddresses(b []byte) (addrs []netip.Addr, err error) {
	var all []spec.EndpointAddress
	if err := json.Unmarshal(b, &all); err != nil {
		return nil, err
	}
	for _, a := range all {
		addrs = append(addrs, a.Addr)
		if a.Addr6.IsValid() {
			addrs = append(addrs, a.Addr6)
		}
	}
	return addrs, nil
}
