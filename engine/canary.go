package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"golang.org/x/sys/unix"
)

// canaryLabel of our namespace holds when the canary sang last.
const canaryLabel = "dunnage/canary"

// noTask is what the canary asks the task service for. There is none of that name.
const noTask = "canary"

// patient marks calls that have no deadline but the caller's.
type patient struct{}

// Canary does what a containerd that is of use can do: it writes to the database,
// asks the snapshotter for its own, and takes the locks of the tasks. Wedged ones
// of the field answer Version and hang in one of these (docs/adr/0027). No shim
// is asked: one that hangs isn't containerd's fault. It has no deadline but ctx's.
func (e *Engine) Canary(ctx context.Context) error {
	ctx = context.WithValue(ctx, patient{}, true)
	namespaces := e.client.NamespaceService()
	err := namespaces.SetLabel(ctx, e.cfg.Namespace, canaryLabel, time.Now().UTC().Format(time.RFC3339))
	if isNotFound(err) { // nothing has been made in it yet
		err = namespaces.Create(ctx, e.cfg.Namespace, nil)
	}
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return e.wrap(ctx, err, "write to containerd's database")
	}
	if _, err := e.client.SnapshotService(e.cfg.Snapshotter).Stat(ctx, noTask); err != nil && !isNotFound(err) {
		return e.wrap(ctx, err, "ask containerd's snapshotter")
	}
	return e.askTasks(ctx)
}

// askTasks reports whether the task service answers, whatever its shims do.
func (e *Engine) askTasks(ctx context.Context) error {
	_, err := e.client.TaskService().Get(ctx, &tasks.GetRequest{ContainerID: noTask})
	if err = errgrpc.ToNative(err); err != nil && !errdefs.IsNotFound(err) {
		return e.wrap(ctx, err, "ask containerd for a task")
	}
	return nil
}

// Present reports whether a process holds containerd's socket, answering or
// not. One that somebody has stopped isn't wedged.
func (e *Engine) Present(ctx context.Context) bool {
	_, err := listener(ctx, e.socket())
	return !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, fs.ErrNotExist)
}

// socket is the path of containerd's socket.
func (e *Engine) socket() string { return strings.TrimPrefix(e.cfg.Address, "unix://") }

// Restart ends the private containerd, whatever state it is in; Run starts it
// again. Shims and containers live on.
func (m *Managed) Restart(ctx context.Context) error {
	pid := m.Pid()
	if pid == 0 {
		return nil // Run is at it
	}
	m.setEnding(pid)
	return m.end(ctx, pid)
}

// end kills a containerd, and waits until it is gone.
func (m *Managed) end(ctx context.Context, pid int) error {
	if err := killProcess(pid); err != nil {
		return fmt.Errorf("kill containerd (process %d): %w", pid, err)
	}
	if !waitGone(ctx, pid) {
		return fmt.Errorf("containerd (process %d) does not end after SIGKILL: it hangs in the kernel, on a disk perhaps: %w", pid, context.Cause(ctx))
	}
	return nil
}

func killProcess(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return nil
}

// Version is containerd's, as it says.
func (e *Engine) Version(ctx context.Context) (string, error) {
	v, err := e.client.Version(ctx)
	if err != nil {
		return "", e.wrap(ctx, err, "ask containerd for its version")
	}
	return v.Version, nil
}
