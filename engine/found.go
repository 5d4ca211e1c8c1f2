package engine

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs/pkg/errgrpc"
)

// FindManaged adopts the managed containerd that answers in cfg's run directory; nil =
// there is none. It starts none. One that lives without answering is an error.
func FindManaged(ctx context.Context, cfg ManagedConfig) (*Managed, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	m := &Managed{cfg: cfg}
	pid, err := listener(ctx, m.Address())
	if err == nil {
		m.pid = pid
		return m, nil
	}
	pids, err := m.unreachable()
	if err == nil && len(pids) > 0 {
		err = fmt.Errorf("the private containerd (process %d) lives, and doesn't answer at %s: somebody removed that; start the agent once, which starts it again", pids[0], m.Address())
	}
	return nil, err
}

// endUnreachable ends the processes that would keep a new containerd waiting. Shims and
// containers live on.
func (m *Managed) endUnreachable(ctx context.Context) error {
	pids, err := m.unreachable()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		m.cfg.Log.Warn("a containerd of an earlier agent doesn't answer at its socket: it is ended, and another started", "pid", pid, "socket", m.Address())
		if err := m.end(ctx, pid); err != nil {
			return err
		}
	}
	return nil
}

// unreachable lists, where nobody answers at the socket, the processes that have this
// containerd's database: one whose socket somebody has removed, or one that waits for
// the other's end.
func (m *Managed) unreachable() (pids []int, err error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("look for a containerd that lives: %w", err)
	}
	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry.Name()); err == nil && m.isOurs(pid) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// isOurs reports whether a process was started with this configuration, and has the
// database: in a container, another may have the same arguments.
func (m *Managed) isOurs(pid int) bool {
	if argument(arguments(pid), "--config") != m.configFile() {
		return false
	}
	fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid)) // the pattern is right
	for _, fd := range fds {
		if samePath(fd, filepath.Join(m.root(), "io.containerd.metadata.v1.bolt", "meta.db")) {
			return true
		}
	}
	return false
}

// Containers counts the containers in all of its namespaces.
func (m *Managed) Containers(ctx context.Context) (n int, err error) {
	c, err := newClient(Config{Address: m.Address()}.withDefaults(), newCalls())
	if err != nil {
		return 0, fmt.Errorf("connect to containerd at %s: %w", m.Address(), err)
	}
	defer c.Close() //nolint:errcheck // it only read
	names, err := c.NamespaceService().List(ctx)
	if err != nil {
		return 0, fmt.Errorf("list containerd's namespaces: %w", errgrpc.ToNative(err))
	}
	for _, name := range names {
		list, err := c.ContainerService().List(namespaces.WithNamespace(ctx, name))
		if err != nil {
			return 0, fmt.Errorf("list the containers of %s: %w", name, errgrpc.ToNative(err))
		}
		n += len(list)
	}
	return n, nil
}
