package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"golang.org/x/sys/unix"

	"dunnage/spec"
)

// A shim that hangs (stopped by a signal, in a read of a dead disk, in a bug of
// its own) leaves its container's process alone: that serves on. It must not
// take looks at others along, is named, and is killed with its process when the
// replica is to be ended or started again, and only then.

const (
	// shimPatience is what a shim gets to answer a look. It takes 1 ms;
	// containerd itself would wait 2 s.
	shimPatience = time.Second
	// hungAfter is how long a shim is silent before it is called hung: a host
	// under heavy load has one miss a look.
	hungAfter = 3 * time.Second
	// asking bounds the questions at a time.
	asking = 16
)

// silence reports whether an error means that there was no answer in time. In
// some versions containerd says it of a shim, in others our own clock does.
func silence(err error) bool {
	return errdefs.IsDeadlineExceeded(err) || errors.Is(err, context.DeadlineExceeded)
}

// unanswered reports whether a task is what containerd 1.6 makes of a shim that
// doesn't answer before the caller's time is up.
func unanswered(t *task.Process) bool { return t.GetStatus() == task.Status_UNKNOWN }

// errSilent: the shim of a task doesn't answer.
var errSilent = fmt.Errorf("its shim does not answer: %w", spec.ErrUnavailable)

// taskOf asks for a container's task, nil = there is none. It wraps errSilent
// where there is one whose shim doesn't answer in time.
func (e *Engine) taskOf(ctx context.Context, id string) (*task.Process, error) {
	limited, cancel := context.WithTimeout(ctx, shimPatience)
	defer cancel()
	r, err := e.client.TaskService().Get(limited, &tasks.GetRequest{ContainerID: id})
	err = errgrpc.ToNative(err)
	switch {
	case errdefs.IsNotFound(err):
		return nil, nil
	case err == nil && unanswered(r.Process), err != nil && silence(err) && ctx.Err() == nil:
		return nil, fmt.Errorf("look at task %s: %w", id, errSilent)
	case err != nil:
		return nil, e.wrap(ctx, err, "look at task %s", id)
	}
	return r.Process, nil
}

// shimAnswers waits for the shim of a container, as long as it takes to call it hung.
// The error then names it, and what to do; containerd's own would blame containerd.
func (e *Engine) shimAnswers(ctx context.Context, c client.Container) error {
	var err error
	for began := time.Now(); time.Since(began) < hungAfter; {
		if _, err = e.taskOf(ctx, c.ID()); !errors.Is(err, errSilent) {
			return err
		}
	}
	limited, cancel := context.WithTimeout(ctx, shimPatience)
	defer cancel()
	if err := e.askTasks(limited); err != nil { // it isn't the shim
		return err
	}
	shims := e.shims(c.ID())
	info, infoErr := c.Info(ctx, client.WithoutRefreshedMetadata)
	if len(shims) == 0 || infoErr != nil {
		return err
	}
	return &callError{
		op:   fmt.Sprintf("its shim (process %d) doesn't answer containerd within %s", shims[0], hungAfter),
		kind: spec.ErrUnavailable, err: errors.New("the replica serves on"),
		hint: fmt.Sprintf("`dunnage restart -p %s %s` replaces it alone", info.Labels[labelProject], spec.ShortReplica(info.Labels[labelService], c.ID())),
	}
}

// askEach asks for the tasks of all containers side by side, and returns those
// whose shim is silent. Where all are, containerd may be to blame.
func (e *Engine) askEach(ctx context.Context, all []containers.Container, byID map[string]*task.Process) (silent map[string]bool, err error) {
	var (
		mu    sync.Mutex
		wg    sync.WaitGroup
		slots = make(chan struct{}, asking)
		errs  error
	)
	silent = map[string]bool{}
	for _, c := range all {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			t, err := e.taskOf(ctx, c.ID)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case errors.Is(err, errSilent):
				silent[c.ID] = true
			case err != nil:
				errs = err
			case t != nil:
				byID[c.ID] = t
			}
		})
	}
	wg.Wait()
	if errs != nil {
		return nil, errs
	}
	if len(silent) == len(all) {
		limited, cancel := context.WithTimeout(ctx, shimPatience)
		defer cancel()
		return silent, e.askTasks(limited)
	}
	return silent, nil
}

// anySilent reports whether a shim didn't answer the last time.
func (v *inventory) anySilent() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, s := range v.entries {
		if !s.silent.IsZero() {
			return true
		}
	}
	return false
}

// quiet is an instance whose shim doesn't answer. Whether its process runs, the
// kernel says.
func (e *Engine) quiet(i spec.Instance, s stocked) spec.Instance {
	shims := e.shims(i.ID)
	if len(shims) == 0 { // it has died, which containerd is about to notice
		return e.unowned(i)
	}
	if time.Since(s.silent) > hungAfter {
		i.Hung = shims[0]
	}
	pids := slices.DeleteFunc(e.cgroup.pids(i.ID), isRuncInit)
	if len(pids) == 0 {
		return e.unowned(i)
	}
	i.Phase = spec.PhaseRunning
	if status := s.task.GetStatus(); status == task.Status_PAUSED || status == task.Status_PAUSING {
		i.Phase = spec.PhasePaused
	}
	i.Pid = pids[0]
	if record, ok := e.started.get(i.ID); ok && slices.Contains(pids, record.Pid) {
		i.Pid = record.Pid
	}
	i.StartedAt = e.startedAt(i.ID, i.Pid)
	return i
}

// endHung kills the shims of a replica that is to be ended or started anew, if
// they hang, with what runs under them: containerd waits for them for ever. It
// asks twice more, so that a slow one gets its time. containerd then cleans up.
func (e *Engine) endHung(ctx context.Context, id string) error {
	for range 2 {
		_, err := e.taskOf(ctx, id)
		if err == nil || !errors.Is(err, errSilent) {
			return err
		}
	}
	limited, cancel := context.WithTimeout(ctx, shimPatience)
	defer cancel()
	if err := e.askTasks(limited); err != nil { // it isn't the shim
		return err
	}
	shims := e.shims(id)
	e.cfg.Log.Warn("kill a shim that doesn't answer", "replica", id, "shims", shims)
	for _, pid := range shims {
		if err := e.killShim(id, pid); err != nil {
			return err
		}
		if !waitGone(ctx, pid) {
			return fmt.Errorf("shim %d of %s does not end after SIGKILL: %w", pid, id, context.Cause(ctx))
		}
	}
	if err := e.killUnowned(ctx, id); err != nil {
		return err
	}
	for { // until containerd has noticed, it passes calls on to the dead
		_, err := e.taskOf(ctx, id)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// isSilent reports whether the replica's shim didn't answer the last look.
func (e *Engine) isSilent(id string) bool {
	e.inventory.mu.Lock()
	defer e.inventory.mu.Unlock()
	s := e.inventory.entries[id]
	return s != nil && !s.silent.IsZero()
}

// killPast kills a replica's processes without its shim.
func (e *Engine) killPast(id string) error {
	for _, pid := range e.cgroup.pids(id) {
		if err := e.signalDirectly(id, pid, unix.SIGKILL); err != nil {
			return err
		}
	}
	return nil
}
