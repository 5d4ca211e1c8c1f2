package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"golang.org/x/sys/unix"

	"dunnage/spec"
)

// A containerd that is killed while it makes a task leaves an orphan: a shim
// that knows no task, or only a bundle directory. After its return containerd
// lists no task, yet refuses to make one ("already exists"), for ever. An agent
// that is killed meanwhile leaves a shim that containerd has forgotten.

// dropOrphan takes away what such a crash left of a replica that has no task.
// One whose shim doesn't answer now may have a task: it is left alone.
func (e *Engine) dropOrphan(ctx context.Context, id string) error {
	service := e.client.TaskService()
	_, err := service.Get(ctx, &tasks.GetRequest{ContainerID: id})
	if err = errgrpc.ToNative(err); !errdefs.IsNotFound(err) {
		return e.wrap(ctx, err, "look at task %s", id)
	}
	// Although it answers "not found", containerd ends a shim that it knows,
	// has runc delete what it had begun, and deletes the bundle.
	_, err = service.Delete(ctx, &tasks.DeleteTaskRequest{ContainerID: id})
	if err = errgrpc.ToNative(err); err != nil && !errdefs.IsNotFound(err) && !shimGone(err) {
		return e.wrap(ctx, err, "delete the half-made task that a crash of containerd left")
	}
	if err := e.endShims(ctx, id); err != nil {
		return err
	}
	return e.dropBundle(ctx, id)
}

// shimGone knows how containerd, which has no code for it, says that the shim
// ended meanwhile; it has deleted the task then.
func shimGone(err error) bool { return strings.Contains(err.Error(), "ttrpc: closed") }

const (
	// lastBreath is what a shim gets to end by itself once its task is deleted,
	// for which it takes 20 ms. It removes its socket on the way, which a killed
	// one can't; the next shim does it then.
	lastBreath = 200 * time.Millisecond
	// endLimit is what a killed process gets to be gone.
	endLimit = 2 * time.Second
)

// endShims waits for the end of a replica's shims and kills those that stay:
// containerd doesn't know them. The replica has no task.
func (e *Engine) endShims(ctx context.Context, id string) error {
	for _, pid := range e.shims(id) {
		patience, cancel := context.WithTimeout(ctx, lastBreath)
		gone := waitGone(patience, pid)
		cancel()
		if gone {
			continue
		}
		if err := e.killShim(id, pid); err != nil {
			return err
		}
		if !waitGone(ctx, pid) {
			return fmt.Errorf("wait for the end of shim %d of %s: %w", pid, id, context.Cause(ctx))
		}
	}
	return nil
}

// killShim looks again who the process is after its pidfd is open, so that a
// number that was given to another process in between is never hit.
func (e *Engine) killShim(id string, pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open shim %d of %s: %w", pid, id, err)
	}
	defer unix.Close(fd)
	if !e.isShim(pid, id) {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill shim %d of %s: %w", pid, id, err)
	}
	return nil
}

// shims lists the processes that are a replica's shim, or are starting it.
func (e *Engine) shims(id string) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry.Name()); err == nil && e.isShim(pid, id) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// isShim compares the arguments that every containerd since 1.3 gives a shim.
// The address is among them: another containerd may have the same names. With
// "delete" it is containerd's own clean-up after a dead shim.
func (e *Engine) isShim(pid int, id string) bool {
	args := arguments(pid)
	return len(args) > 0 && strings.HasPrefix(filepath.Base(args[0]), "containerd-shim-") && args[len(args)-1] != "delete" &&
		argument(args, "-namespace") == e.cfg.Namespace && argument(args, "-id") == id &&
		samePath(argument(args, "-address"), strings.TrimPrefix(e.cfg.Address, "unix://"))
}

// arguments is empty for a process that is gone, a zombie or a kernel thread.
func arguments(pid int) []string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || len(b) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
}

// option is the argument that follows name.
func argument(args []string, name string) string {
	if i := slices.Index(args, name); i >= 0 && i+1 < len(args) {
		return args[i+1]
	}
	return ""
}

// samePath sees through links such as /var/run.
func samePath(a, b string) bool {
	if a == b {
		return true
	}
	infoA, errA := os.Stat(a)
	infoB, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(infoA, infoB)
}

// bundle is where the managed containerd keeps what a task runs from. Where
// another one does is not known, and is not ours to change.
func (e *Engine) bundle(id string) string {
	dir := filepath.Dir(strings.TrimPrefix(e.cfg.Address, "unix://"))
	return filepath.Join(dir, "state", "io.containerd.runtime.v2.task", e.cfg.Namespace, id)
}

// dropBundle deletes a bundle that nobody uses. containerd leaves one for ever
// when it was killed before the shim had written its first files there.
func (e *Engine) dropBundle(ctx context.Context, id string) error {
	dir := e.bundle(id)
	root := filepath.Join(dir, "rootfs")
	if !bundleStays(ctx, dir) {
		return nil
	}
	if err := mount.UnmountAll(root, unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("unmount %s, which a crash of containerd left: %w", root, err)
	}
	// Remove fails on a directory with contents: what is still mounted, the
	// replica's files, is never deleted through it.
	if err := os.Remove(root); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s, which a crash of containerd left: %w", root, err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove what a crash of containerd left: %w", err)
	}
	return nil
}

// bundleLimit is more than the 5 s that containerd gives its own clean-up after
// a dead shim. Without the bundle, that would leave what runc made.
const bundleLimit = 6 * time.Second

// bundleStays reports whether a bundle is there that containerd doesn't clean
// up: it can't without the name of the runtime, which the shim writes.
func bundleStays(ctx context.Context, dir string) bool {
	for deadline := time.Now().Add(bundleLimit); ; {
		if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
			return false
		}
		_, err := os.Lstat(filepath.Join(dir, "runtime"))
		if errors.Is(err, fs.ErrNotExist) || time.Now().After(deadline) {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// awaitEmpty waits for the end of the replica's processes after its orphan was
// dropped, which killed them; it kills none itself.
func (e *Engine) awaitEmpty(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, endLimit)
	defer cancel()
	for _, pid := range e.cgroup.pids(id) {
		if !waitGone(ctx, pid) {
			return fmt.Errorf("process %d of its earlier run still lives without a shim; dunnage waits for its end: %w", pid, spec.ErrUnavailable)
		}
	}
	return nil
}

// bundleExists knows containerd's refusal because of a bundle directory that
// it doesn't know; 1.6 has no code for it.
func (e *Engine) bundleExists(id string, err error) bool {
	return err != nil && strings.Contains(err.Error(), filepath.Join(e.cfg.Namespace, id)+": file exists")
}

// isRuncInit reports whether a process is runc on its way into the container:
// not yet its program, and after a crash never.
func isRuncInit(pid int) bool {
	return slices.Equal(arguments(pid), []string{"runc", "init"})
}
