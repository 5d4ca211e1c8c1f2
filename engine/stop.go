package engine

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/moby/sys/signal"
	"golang.org/x/sys/unix"

	"dunnage/internal/fault"
	"dunnage/spec"
)

// killLimit bounds the wait for the end of a process after SIGKILL. One that
// needs longer hangs in the kernel, for example on a dead network disk.
const killLimit = 15 * time.Second

// Signal sends sig ("SIGTERM", or "" for the container's own stop signal) to
// the container's first process. One that is gone already is success.
func (e *Engine) Signal(ctx context.Context, id, sig string) error {
	if sig == "" {
		c, err := e.client.ContainerService().Get(ctx, id)
		if errdefs.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return e.wrap(ctx, err, "signal %s: find its container", id)
		}
		rec, err := recordOf(c)
		if err != nil {
			return err
		}
		sig = rec.StopSignal
	}
	s, err := parseSignal(sig)
	if err != nil {
		return err
	}
	// A shim would have runc send it, for 40 ms of a CPU. runc is needed for
	// SIGKILL, since it thaws a paused container that is to die, and where the
	// process has moved to a group of its own.
	if record, ok := e.started.get(id); ok && s != unix.SIGKILL && slices.Contains(e.cgroup.pids(id), record.Pid) {
		return e.signalDirectly(id, record.Pid, s)
	}
	if s == unix.SIGKILL && e.isSilent(id) {
		return e.killPast(id)
	}
	_, err = e.client.TaskService().Kill(ctx, &tasks.KillRequest{ContainerID: id, Signal: uint32(s)})
	if err = errgrpc.ToNative(err); err == nil {
		return nil
	}
	if !processGone(err) {
		return e.wrap(ctx, err, "send %s to %s", sig, id)
	}
	if record, ok := e.started.get(id); ok && slices.Contains(e.cgroup.pids(id), record.Pid) {
		return e.signalDirectly(id, record.Pid, s)
	}
	return nil
}

func parseSignal(name string) (syscall.Signal, error) {
	s, err := signal.ParseSignal(name)
	if err != nil {
		return 0, fmt.Errorf("signal %q is unknown: use a name like SIGTERM or a number: %w", name, spec.ErrRefused)
	}
	return s, nil
}

// processGone knows the ways in which containerd says that there is nothing
// to signal: 1.6 has no code for the second and third.
func processGone(err error) bool {
	return errdefs.IsNotFound(err) || err != nil &&
		(strings.Contains(err.Error(), "process already finished") || strings.Contains(err.Error(), "no such process"))
}

// Remove kills what still runs, then deletes task, container, writable layer,
// anonymous volumes and start record, each of which may be missing.
func (e *Engine) Remove(ctx context.Context, id string) error {
	defer e.replicas.Lock(id)()
	defer e.inventory.touch(id)
	e.keepBallast()
	e.untried.Delete(id)
	if err := e.remove(ctx, id); err != nil {
		return fmt.Errorf("remove %s: %w", id, err)
	}
	return nil
}

func (e *Engine) remove(ctx context.Context, id string) error {
	if err := e.deleteTask(ctx, id); err != nil {
		return err
	}
	e.forgetProber(id)
	c, err := e.client.ContainerService().Get(ctx, id)
	known := err == nil
	if err != nil && !errdefs.IsNotFound(err) {
		return e.wrap(ctx, err, "find its container")
	}
	// The anonymous volumes, the files and the layer go first: after a crash here the
	// container is still listed, and removed again.
	for _, dir := range []string{filepath.Join(e.cfg.anonymousDir(), id), e.cfg.filesDir(id)} {
		if err := removeTree(dir); err != nil {
			return err
		}
	}
	err = e.client.SnapshotService(e.cfg.Snapshotter).Remove(ctx, id)
	if err != nil && !errdefs.IsNotFound(err) {
		return e.wrap(ctx, err, "remove its writable layer")
	}
	err = e.client.ContainerService().Delete(ctx, id)
	if err != nil && !errdefs.IsNotFound(err) {
		return e.wrap(ctx, err, "delete its container")
	}
	if known {
		e.pruneLogs(keyOf(c))
	}
	e.oom.forget(id)
	return e.started.remove(id)
}

// deleteTask kills the task's processes, waits for their end and deletes the
// record. Without a task it ends what an unowned run or a crash left.
func (e *Engine) deleteTask(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, killLimit, fmt.Errorf("its process does not end after SIGKILL within %s; it may hang in the kernel: %w", killLimit, spec.ErrUnavailable))
	defer cancel()
	if e.isSilent(id) {
		if err := e.endHung(ctx, id); err != nil {
			return err
		}
	}
	status, err := e.taskStatus(ctx, id)
	if err != nil {
		return err
	}
	if status != task.Status_UNKNOWN {
		err = e.endTask(ctx, id, status)
	} else {
		err = e.dropOrphan(ctx, id)
	}
	if err != nil {
		return err
	}
	return e.killUnowned(ctx, id)
}

func (e *Engine) endTask(ctx context.Context, id string, status task.Status) error {
	service := e.client.TaskService()
	if status != task.Status_STOPPED && status != task.Status_CREATED {
		_, err := service.Kill(ctx, &tasks.KillRequest{ContainerID: id, Signal: uint32(unix.SIGKILL), All: true})
		if err = errgrpc.ToNative(err); err != nil && !processGone(err) {
			return e.wrap(ctx, err, "kill it")
		}
		_, err = service.Wait(ctx, &tasks.WaitRequest{ContainerID: id})
		if err = errgrpc.ToNative(err); err != nil && !processGone(err) && !errdefs.IsUnknown(err) {
			return e.wrap(ctx, err, "wait for its end")
		}
	}
	_, err := service.Delete(ctx, &tasks.DeleteTaskRequest{ContainerID: id})
	if err = errgrpc.ToNative(err); err != nil && !processGone(err) {
		return e.wrap(ctx, err, "delete its task")
	}
	return e.endShims(ctx, id) // the next one wants the same socket
}

// killUnowned ends processes that no shim owns any more, and waits for that.
func (e *Engine) killUnowned(ctx context.Context, id string) error {
	for {
		pids := e.cgroup.pids(id)
		if len(pids) == 0 {
			return nil
		}
		for _, pid := range pids {
			if err := e.signalDirectly(id, pid, unix.SIGKILL); err != nil {
				return err
			}
		}
		for _, pid := range pids {
			if !waitGone(ctx, pid) {
				return context.Cause(ctx)
			}
		}
	}
}

// signalDirectly signals a process of the replica's group past containerd. The
// pidfd is opened before the membership is looked at, so that a number that
// was given to another process in between is never hit.
func (e *Engine) signalDirectly(id string, pid int, s syscall.Signal) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open process %d of %s: %w", pid, id, err)
	}
	defer unix.Close(fd)
	if !slices.Contains(e.cgroup.pids(id), pid) {
		return nil
	}
	err = fault.Do("process signal", func() error { return unix.PidfdSendSignal(fd, s, nil, 0) })
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("send %s to process %d of %s: %w", s, pid, id, err)
	}
	return nil
}
