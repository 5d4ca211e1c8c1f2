package engine

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/events"
	"golang.org/x/sys/unix"
)

// Changes delivers a value whenever something may have changed: containerd's
// events of tasks and containers, a connection that came back, a lost process
// that is gone at last. The channel is closed when ctx ends.
func (e *Engine) Changes(ctx context.Context) <-chan struct{} {
	out := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(e.ctx, cancel)
	forget := e.nudges.add(out)
	e.wg.Go(func() {
		defer close(out)
		defer forget() // before close: no nudge may meet a closed channel
		defer stop()
		defer cancel()
		e.followEvents(ctx, out)
	})
	return out
}

// followEvents keeps one subscription, and tells of a change each time it is
// renewed, because events in between are lost.
func (e *Engine) followEvents(ctx context.Context, out chan<- struct{}) {
	const first, longest = 100 * time.Millisecond, 2 * time.Second
	pause := first
	for {
		if e.subscribe(ctx, out) {
			pause = first
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, longest)
	}
}

// subscribe passes events on until the stream breaks, and reports whether
// there was any.
func (e *Engine) subscribe(ctx context.Context, out chan<- struct{}) (any bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ns := fmt.Sprintf("namespace==%q", e.cfg.Namespace)
	events, errs := e.client.EventService().Subscribe(ctx,
		ns+`,topic~="^/tasks/(create|start|exit|oom|delete|paused|resumed)$"`,
		ns+`,topic~="^/containers/"`)
	// The subscription is on its way before this call is answered; what
	// happened before it is in the caller's next look.
	if e.probe(ctx) == nil {
		e.inventory.follow(+1)
		defer e.inventory.follow(-1)
		nudge(out)
	}
	for {
		select {
		case event := <-events:
			any = true
			e.inventory.touch(changed(event))
			nudge(out)
		case <-errs: //nolint:errcheck // why the stream ended makes no difference: it is opened again
			return any
		}
	}
}

// changed is the container that an event is about; empty if it can't be told.
func changed(e *events.Envelope) string {
	if id, ok := e.Field([]string{"event", "container_id"}); ok { // a task's
		return id
	}
	id, _ := e.Field([]string{"event", "id"})
	return id
}

// nudge never blocks: a value that waits already says the same.
func nudge(out chan<- struct{}) {
	select {
	case out <- struct{}{}:
	default:
	}
}

// nudges are the channels of the present Changes calls.
type nudges struct {
	mu      sync.Mutex
	outs    map[chan<- struct{}]bool
	watched map[string]bool // lost replicas that are waited for
}

func (n *nudges) add(out chan<- struct{}) (forget func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.outs == nil {
		n.outs = make(map[chan<- struct{}]bool)
	}
	n.outs[out] = true
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.outs, out)
	}
}

func (n *nudges) all() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for out := range n.outs {
		nudge(out)
	}
}

// claim reports whether the caller is the first to watch id.
func (n *nudges) claim(id string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.watched == nil {
		n.watched = make(map[string]bool)
	}
	if n.watched[id] {
		return false
	}
	n.watched[id] = true
	return true
}

func (n *nudges) release(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.watched, id)
}

// watchLost tells of a change when a process that has no shim is gone: nobody
// else would.
func (e *Engine) watchLost(id string, pid int) {
	if e.ctx.Err() != nil || !e.nudges.claim(id) {
		return
	}
	e.wg.Go(func() {
		defer e.nudges.all()
		defer e.nudges.release(id)
		waitGone(e.ctx, pid)
	})
}

// waitGone returns when the process has ended (it may be a zombie still), or
// with ctx. It reports whether the process has ended.
func waitGone(ctx context.Context, pid int) bool {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil { // ESRCH: gone and reaped
		return true
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return false
	}
	file := os.NewFile(uintptr(fd), "pidfd") // which waits without a thread
	defer file.Close()
	conn, err := file.SyscallConn()
	if err != nil {
		return false
	}
	defer context.AfterFunc(ctx, func() { _ = file.SetReadDeadline(time.Now()) })()
	gone := false
	err = conn.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		gone = err == nil && n > 0
		return gone
	})
	return err == nil && gone
}
