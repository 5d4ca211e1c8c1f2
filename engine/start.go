package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"

	"dunnage/internal/fault"
	"dunnage/spec"
)

// Start gives the container a process. A running one is left as it is; the
// record of an exited one is deleted. It never makes a second process.
func (e *Engine) Start(ctx context.Context, id string) error {
	defer e.replicas.Lock(id)()
	defer e.inventory.touch(id)
	e.keepBallast()
	running, err := e.clearTask(ctx, id)
	if err != nil || running {
		return err
	}
	c, err := e.client.ContainerService().Get(ctx, id)
	if err != nil {
		return e.wrap(ctx, err, "start %s: find its container", id)
	}
	if err := e.start(ctx, c); err != nil {
		return fmt.Errorf("start %s: %w", id, sayNoSpace(err))
	}
	if fault.Sabotaged("second copy") { // of what the tests run, which watch for that
		e.wg.Go(func() {
			_, _ = e.Exec(e.ctx, spec.ExecRequest{Replica: id, Command: []string{"/testapp", "sleep", "1h"}}, spec.Terminal{})
		})
	}
	return nil
}

// clearTask leaves the container without a task, or reports that one runs.
func (e *Engine) clearTask(ctx context.Context, id string) (running bool, err error) {
	if e.isSilent(id) {
		if len(slices.DeleteFunc(e.cgroup.pids(id), isRuncInit)) > 0 {
			return true, nil // it serves on
		}
		if err := e.endHung(ctx, id); err != nil {
			return false, fmt.Errorf("start %s: %w", id, err)
		}
	}
	status, err := e.taskStatus(ctx, id)
	if err != nil {
		return false, err
	}
	switch status {
	case task.Status_RUNNING, task.Status_PAUSED, task.Status_PAUSING:
		return true, nil
	case task.Status_STOPPED, task.Status_CREATED: // created: its starter crashed; its network may be another by now
		if err := e.deleteTask(ctx, id); err != nil {
			return false, err
		}
	}
	_, untried := e.untried.LoadAndDelete(id)
	if untried && len(e.cgroup.pids(id)) == 0 {
		return false, nil
	}
	// Either runc is on its way to a program that nobody will start, or whoever
	// asked for the task went away: containerd gives that up and forgets its shim,
	// which would be asked for the next task and never answer.
	if len(e.shims(id)) > 0 {
		if err := e.dropOrphan(ctx, id); err != nil {
			return false, fmt.Errorf("start %s: %w", id, err)
		}
	}
	if err := e.awaitEmpty(ctx, id); err != nil {
		return false, fmt.Errorf("start %s: %w", id, err)
	}
	return false, nil
}

// taskStatus is UNKNOWN when there is no task.
func (e *Engine) taskStatus(ctx context.Context, id string) (task.Status, error) {
	r, err := e.client.TaskService().Get(ctx, &tasks.GetRequest{ContainerID: id})
	if err = errgrpc.ToNative(err); errdefs.IsNotFound(err) {
		return task.Status_UNKNOWN, nil
	}
	if err != nil {
		return task.Status_UNKNOWN, e.wrap(ctx, err, "look at task %s", id)
	}
	return r.Process.Status, nil
}

func (e *Engine) start(ctx context.Context, c containers.Container) error {
	rec, err := recordOf(c)
	if err != nil {
		return err
	}
	if err := checkSecrets(rec.Secrets); err != nil {
		return err
	}
	rootfs, err := e.writableLayer(ctx, c)
	if err != nil {
		return err
	}
	root, closeRoot := lazyRoot(func() ([]mount.Mount, error) { return rootfs, nil })
	defer closeRoot()
	if err := e.prepareMounts(c.ID, rec.Mounts, root); err != nil {
		return err
	}
	if err := loadProfile(); err != nil {
		return err
	}
	log, err := e.logURI(keyOf(c), c.Image, rec.Logging)
	if err != nil {
		return err
	}
	return e.run(ctx, c.ID, rootfs, log, rec.TTY)
}

// writableLayer is the container's. One that somebody removed is made anew:
// what was in it is lost either way, and a replica that can never start again
// would hold up every deploy and rollback.
func (e *Engine) writableLayer(ctx context.Context, c containers.Container) ([]mount.Mount, error) {
	mounts, err := e.client.SnapshotService(c.Snapshotter).Mounts(ctx, c.SnapshotKey)
	if !errdefs.IsNotFound(err) {
		return mounts, e.wrap(ctx, err, "find its writable layer")
	}
	_, dgst, err := canonical(c.Image)
	if err != nil {
		return nil, err
	}
	image, err := e.toRun(ctx, dgst.String())
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", c.Image, err)
	}
	return e.prepareSnapshot(ctx, c.ID, c.Image, image)
}

// run makes the task and starts it. The start record is written in between:
// once the process runs, its loss must not look like "never started".
func (e *Engine) run(ctx context.Context, id string, rootfs []mount.Mount, log string, tty bool) error {
	made, err := e.makeTask(ctx, &tasks.CreateTaskRequest{
		ContainerID: id, Rootfs: protoMounts(rootfs), Stdout: log, Stderr: log, Terminal: tty,
	})
	if err != nil {
		return errors.Join(e.startError(ctx, err), e.dropTask(ctx, id))
	}
	if err := e.started.put(id, startRecord{Pid: int(made.Pid), Started: time.Now()}); err != nil {
		return errors.Join(err, e.dropTask(ctx, id))
	}
	if _, err := e.client.TaskService().Start(ctx, &tasks.StartRequest{ContainerID: id}); err != nil {
		err = e.startError(ctx, errgrpc.ToNative(err))
		return errors.Join(err, e.dropTask(ctx, id))
	}
	return nil
}

// cleanLimit is what containerd gets to clean up after a dead shim: until
// then it shows no task, but refuses a new one.
const cleanLimit = 10 * time.Second

// cleanedAway knows how containerd fails whose clean-up after an earlier shim
// takes the new one's bundle along, before its shim starts or after, or ends that
// shim. A shim that isn't installed looks the same.
func cleanedAway(err error) bool {
	if err == nil {
		return false
	}
	text := err.Error()
	gone := strings.Contains(text, "no such file or directory")
	return gone && strings.Contains(text, "failed to start shim") ||
		gone && strings.Contains(text, "failed to create shim task: mkdir ") ||
		strings.Contains(text, "failed to create shim task: ttrpc: closed")
}

func (e *Engine) makeTask(ctx context.Context, r *tasks.CreateTaskRequest) (*tasks.CreateTaskResponse, error) {
	deadline := time.Now().Add(cleanLimit)
	for tries := 0; ; tries++ {
		made, err := e.client.TaskService().Create(ctx, r)
		err = errgrpc.ToNative(err)
		if cleanedAway(err) && tries < 5 && ctx.Err() == nil {
			time.Sleep(20 * time.Millisecond)
			continue
		}
		exists := errdefs.IsAlreadyExists(err) || e.bundleExists(r.ContainerID, err)
		if !exists || time.Now().After(deadline) {
			return made, err
		}
		if err := e.makeRoom(ctx, r.ContainerID, err); err != nil {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// makeRoom drops an orphan that stands in a new task's way. Without a shim and
// with a bundle that it knows, containerd is cleaning up itself.
func (e *Engine) makeRoom(ctx context.Context, id string, refusal error) error {
	if len(e.shims(id)) == 0 && !e.bundleExists(id, refusal) {
		return nil
	}
	if err := e.dropOrphan(ctx, id); err != nil {
		return err
	}
	return e.awaitEmpty(ctx, id)
}

// dropTask undoes a failed start, also when the caller's time is up.
func (e *Engine) dropTask(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), killLimit)
	defer cancel()
	return errors.Join(e.deleteTask(ctx, id), e.started.remove(id))
}

func protoMounts(ms []mount.Mount) []*types.Mount {
	out := make([]*types.Mount, len(ms))
	for i, m := range ms {
		out[i] = &types.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options}
	}
	return out
}
