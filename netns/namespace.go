package netns

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"dunnage/internal/fault"
	"dunnage/internal/regular"
	"dunnage/spec"
)

// openNamespace returns the file of the replica's namespace, making it first
// if it isn't there. The bind mount is the last step of making it: a namespace
// that can be seen is complete.
func (n *Network) openNamespace(ctx context.Context, e spec.Endpoint) (*os.File, error) {
	path := n.Namespace(e.Replica)
	mounted, err := isNamespace(path)
	if err != nil {
		return nil, err
	}
	if !mounted {
		if err := mountNamespace(ctx, e, path); err != nil {
			return nil, err
		}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open namespace: %w", err)
	}
	return f, nil
}

// ownNamespace is that of the calling thread.
const ownNamespace = "/proc/thread-self/ns/net"

// isNamespace tells a mounted namespace from a missing one or an empty file
// that a crash left behind.
func isNamespace(path string) (bool, error) {
	var st unix.Statfs_t
	err := unix.Statfs(path, &st)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at namespace %s: %w", path, err)
	}
	return st.Type == unix.NSFS_MAGIC, nil
}

// mountNamespace mounts the host's namespace, the one that the replica runs in,
// or a new one.
func mountNamespace(ctx context.Context, e spec.Endpoint, path string) error {
	if err := regular.MkdirThrough(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make directory for namespaces: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0o444) // a FIFO there does as well
	if err != nil {
		return fmt.Errorf("make mount point for namespace: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("make mount point for namespace: %w", err)
	}
	if e.Network == spec.NetworkHost {
		return bindNamespace(ownNamespace, path)
	}
	linked, err := linkedNamespace(e.Replica)
	if err != nil {
		return err
	}
	if linked == nil {
		return makeNamespace(ctx, path, hasIPv6(e))
	}
	defer linked.Close()
	return bindNamespace(fmt.Sprintf("/proc/self/fd/%d", linked.Fd()), path)
}

// linkedNamespace opens the namespace at the other end of the replica's link,
// through a process that lives in it; nil without one. The mount may have been
// undone under a running replica, which a new namespace would cut off.
func linkedNamespace(replica string) (*os.File, error) {
	host, err := netlink.LinkByName(hostLink(replica))
	var notFound netlink.LinkNotFoundError
	if errors.As(err, &notFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find link: %w", err)
	}
	id := host.Attrs().NetNsID
	// Both ends here is nobody's namespace; a link without its owner's name is on its way out.
	if id < 0 || host.Attrs().Alias != replica {
		return nil, nil
	}
	all, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	asked := map[string]bool{}
	for _, path := range all {
		name, err := os.Readlink(path)
		if err != nil || asked[name] { // an error: the process has ended
			continue
		}
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		if got, err := netlink.GetNetNsIdByFd(int(f.Fd())); err == nil && got == id {
			return f, nil
		}
		f.Close()
		asked[name] = true
	}
	return nil, nil
}

func bindNamespace(from, path string) error {
	if err := fault.Do("namespace mount", func() error { return unix.Mount(from, path, "", unix.MS_BIND, "") }); err != nil {
		return fmt.Errorf("mount namespace at %s: %w", path, err)
	}
	return nil
}

func makeNamespace(ctx context.Context, path string, v6 bool) error {
	return onThread(ctx, func() error {
		if err := fault.Do("namespace make", func() error { return unix.Unshare(unix.CLONE_NEWNET) }); err != nil {
			return fmt.Errorf("make namespace: %w", err)
		}
		if err := insideSysctls(v6); err != nil {
			return err
		}
		return bindNamespace(ownNamespace, path)
	})
}

// onThread runs f on an OS thread of its own, which dies with it: f may move
// the thread to another namespace. The goroutine ends when f does.
func onThread(ctx context.Context, f func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the runtime ends the thread
		done <- f()
	}()
	return <-done
}

// insideSysctls sets what every container expects of its namespace, as Docker
// does: ping and ports below 1024 without privileges. IPv6 is set up by us
// alone, without router advertisements or link-local addresses, so that no
// duplicate address detection delays the first packet. These are the defaults
// for the link that is made next.
func insideSysctls(v6 bool) error {
	return setAll([]sysctl{
		{"net/ipv4/ip_unprivileged_port_start", "0"},
		{"net/ipv4/ping_group_range", "0 2147483647"},
		{"net/ipv6/conf/default/accept_ra", "0"},
		{"net/ipv6/conf/default/accept_dad", "0"},
		{"net/ipv6/conf/default/addr_gen_mode", "1"},
		{"net/ipv6/conf/default/disable_ipv6", boolSysctl(!v6)},
	})
}

// removeNamespace unmounts the namespace and deletes the file. The kernel
// frees the namespace once the last process in it is gone.
func (n *Network) removeNamespace(replica string) error {
	path := n.Namespace(replica)
	for {
		err := fault.Do("namespace unmount", func() error { return unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) })
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			break // not mounted (any more)
		}
		if err != nil {
			return fmt.Errorf("unmount namespace %s: %w", path, err)
		}
	}
	if err := fault.Do("namespace file remove", func() error { return os.Remove(path) }); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove mount point of namespace: %w", err)
	}
	return nil
}
