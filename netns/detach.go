package netns

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"dunnage/internal/fault"
)

// Detach removes the replica's link, namespace, conntrack entries and files;
// what is gone already is success. TCP connections that are still open end
// with a reset instead of hanging. The files go last: they hold the addresses,
// and keep the replica listed by Attached until everything else is gone.
func (n *Network) Detach(ctx context.Context, replica string) error {
	if err := checkName(replica); err != nil {
		return fmt.Errorf("detach: %w", err)
	}
	defer n.replicas.Lock(replica)()
	if err := n.detach(ctx, replica); err != nil {
		return fmt.Errorf("detach %s: %w", replica, err)
	}
	return nil
}

func (n *Network) detach(ctx context.Context, replica string) error {
	addrs, _, err := n.recorded(replica)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := disownLink(replica); err != nil {
		return err
	}
	if err := n.removeNamespace(replica); err != nil {
		return err
	}
	if err := n.forgetConnections(ctx, addrs); err != nil {
		return err
	}
	n.forgetInnards(replica)
	n.addresses.Forget(n.addressesPath(replica))
	n.settings.forget(routeLocalnet(hostLink(replica)))
	if err := fault.Do("host files remove", func() error { return os.RemoveAll(n.dir(replica)) }); err != nil {
		return fmt.Errorf("remove host files: %w", err)
	}
	return sabotageDetach()
}

// disownLink takes its owner's name off the replica's link. The kernel deletes
// it with the namespace at the other end, those of many replicas at once. To
// delete it ourselves takes 30 ms under a lock of the whole kernel, and, like
// setting it down, may delay the next link's first packet by a second.
func disownLink(replica string) error {
	l, err := netlink.LinkByName(hostLink(replica))
	if err == nil && l.Attrs().NetNsID < 0 { // no namespace at the other end
		return deleteLink(netlink.LinkDel, l)
	}
	if err == nil {
		err = fault.Do("link disown", func() error { return netlink.LinkSetAlias(l, "") })
	}
	var notFound netlink.LinkNotFoundError
	if errors.As(err, &notFound) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("disown link of %s: %w", replica, err)
	}
	return nil
}
