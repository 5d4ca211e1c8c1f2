package engine

import (
	"context"
	"fmt"
	"log/slog"

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
