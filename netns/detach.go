package netns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"dunnage/netns/rules"
)

// Detach removes the replica's link, namespace, conntrack entries and files;
// what is gone already is success. TCP connections that are still open end
// with a reset instead of hanging. The files go last: they hold the addresses,
// and keep the replica listed by Attached until everything else is gone.
func (n *Network) Detach(ctx context.Context, replica string) error {
	if err := checkName(replica); err != nil {
		return fmt.Errorf("detach: %w", err)
	}
	defer n.replicas.lock(replica)()
	if err := n.detach(ctx, replica); err != nil {
		return fmt.Errorf("detach %s: %w", replica, err)
	}
	return nil
}

func (n *Network) detach(ctx context.Context, replica string) error {
	addrs, err := n.recorded(replica)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := n.removeLink(replica); err != nil {
		return err
	}
	if err := n.removeNamespace(replica); err != nil {
		return err
	}
	if err := n.forgetConnections(ctx, addrs); err != nil {
		return err
	}
	if err := os.RemoveAll(n.dir(replica)); err != nil {
		return fmt.Errorf("remove host files: %w", err)
	}
	return nil
}

func (n *Network) removeLink(replica string) error {
	l, err := netlink.LinkByName(hostLink(replica))
	var notFound netlink.LinkNotFoundError
	if errors.As(err, &notFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find link: %w", err)
	}
	return deleteLink(netlink.LinkDel, l)
}

// Attached lists the replicas that have a namespace, link or files, and those
// of them that have all three; both sorted. A link stands for what is in the
// namespace too: it goes with either end.
func (n *Network) Attached(context.Context) (some, whole []string, err error) {
	parts := map[string]int{}
	for _, dir := range []string{"netns", "replicas"} {
		entries, err := os.ReadDir(filepath.Join(n.cfg.RunDir, dir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, nil, fmt.Errorf("list attached replicas: %w", err)
		}
		for _, e := range entries {
			parts[e.Name()]++
		}
	}
	links, err := retryDump(netlink.LinkList)
	if err != nil {
		return nil, nil, fmt.Errorf("list links: %w", err)
	}
	for _, l := range links {
		if a := l.Attrs(); strings.HasPrefix(a.Name, rules.LinkPrefix) && a.Alias != "" && a.Name == hostLink(a.Alias) {
			parts[a.Alias]++
		}
	}
	for _, id := range slices.Sorted(maps.Keys(parts)) {
		some = append(some, id)
		if parts[id] == 3 {
			whole = append(whole, id)
		}
	}
	return some, whole, nil
}
