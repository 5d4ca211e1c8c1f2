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

// FindManaged adopts the managed containerd that answers in cfg's run
// directory; it starts none.
func FindManaged(ctx context.Context, cfg ManagedConfig) (*Managed, bool) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	m := &Managed{cfg: cfg}
	pid, err := listener(ctx, m.Address())
	if err != nil {
		return nil, false
	}
	m.pid = pid
	return m, true
}

// endUnreachable ends the processes that have this containerd's database without
// answering at its socket: one whose socket somebody has removed, or one that waits for
// the other's end. Each would keep a new one waiting. Shims and containers live on.
func (m *Managed) endUnreachable(ctx context.Context) error {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return fmt.Errorf("look for a containerd that lives: %w", err)
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || !m.isOurs(pid) {
			continue
		}
		m.cfg.Log.Warn("a containerd of an earlier agent doesn't answer at its socket: it is ended, and another started", "pid", pid, "socket", m.Address())
		if err := m.end(ctx, pid); err != nil {
			return err
		}
	}
	return nil
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
