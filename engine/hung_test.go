package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"dunnage/spec"
)

// TestShimHangs: a shim that hangs is named, holds up no look at others and
// nobody's stop, and is replaced alone, with never two processes.
func TestShimHangs(t *testing.T) {
	b := newBench(t)
	image := b.app()
	hung, other, next := request(image, 1, "serve", "8080"), request(image, 2, "serve", "8080"), request(image, 3, "serve", "8080")
	b.run(hung)
	b.run(other)
	before := b.awaitPhase(hung.ID, spec.PhaseRunning)
	shim := b.shims(hung.ID)
	if len(shim) != 1 {
		t.Fatalf("shims: %v", shim)
	}
	if err := syscall.Kill(shim[0], syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(shim[0], syscall.SIGKILL) }) // of a failed test
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		began := time.Now()
		b.inventory.touch("") // else everything is looked at every 5 s only
		i := b.instance(hung.ID)
		if i.Phase != spec.PhaseRunning || i.Pid != before.Pid {
			t.Fatalf("its process lives, and it is shown as %+v", i)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("a look took %s", took)
		}
		if i.Hung == shim[0] {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the shim isn't named: %+v", i)
		}
	}
	if i := b.instance(other.ID); i.Phase != spec.PhaseRunning || i.Hung != 0 {
		t.Errorf("the other one: %+v", i)
	}
	began := time.Now()
	_, err := b.Exec(b.ctx, spec.ExecRequest{Replica: hung.ID, Command: []string{"/hello"}}, spec.Terminal{})
	if want := fmt.Sprintf("its shim (process %d) doesn't answer containerd within 3s: the replica serves on; `dunnage restart -p ", shim[0]); err == nil || !strings.Contains(err.Error(), want) ||
		!errors.Is(err, spec.ErrUnavailable) || time.Since(began) > 10*time.Second {
		t.Errorf("an exec says after %s: %v, want %s", time.Since(began), err, want)
	}
	b.run(next)
	if err := b.Remove(b.ctx, next.ID); err != nil {
		t.Errorf("another one can't be removed: %v", err)
	}
	if err := b.Start(b.ctx, hung.ID); err != nil || !slices.Contains(b.cgroup.pids(hung.ID), before.Pid) {
		t.Errorf("a start beside its process: %v, %v", err, b.cgroup.pids(hung.ID))
	}

	if err := b.Signal(b.ctx, hung.ID, "SIGKILL"); err != nil {
		t.Errorf("kill: %v", err)
	}
	b.awaitPhase(hung.ID, spec.PhaseExited)
	b.startsOnce(hung.ID)
	after := b.awaitPhase(hung.ID, spec.PhaseRunning)
	if after.Pid == before.Pid || after.Hung != 0 {
		t.Errorf("started anew: %+v", after)
	}
	if b.isShim(shim[0], hung.ID) {
		t.Errorf("shim %d lives", shim[0])
	}

	shim = b.shims(hung.ID)
	if err := syscall.Kill(shim[0], syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	b.await(hung.ID, "silent", func(spec.Instance) bool { b.inventory.touch(""); return b.isSilent(hung.ID) })
	b.removesAll(hung.ID)
	b.removesAll(other.ID)
}

// TestCanary: the canary sings for a containerd that works, and not for one that
// hangs. Present tells a hanging one from one that is gone.
func TestCanary(t *testing.T) {
	b := newBench(t)
	if err := b.Canary(b.ctx); err != nil { // the namespace isn't there yet
		t.Fatal(err)
	}
	b.app()
	began := time.Now()
	if err := b.Canary(b.ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("it takes %s", time.Since(began))
	b.daemon.Signal(syscall.SIGSTOP)
	ctx, cancel := context.WithTimeout(b.ctx, 500*time.Millisecond)
	defer cancel()
	began = time.Now()
	if err := b.Canary(ctx); err == nil || time.Since(began) > 10*time.Second {
		t.Errorf("stopped: %v after %s", err, time.Since(began))
	}
	if !b.Present(b.ctx) {
		t.Error("stopped, it isn't present")
	}
	if err := b.wrap(b.ctx, context.DeadlineExceeded, "list containers"); !strings.Contains(err.Error(), "it hangs; `ps -o pid,stat,args -p ") {
		t.Errorf("stopped: %v", err)
	}
	b.daemon.Signal(syscall.SIGCONT)
	b.daemon.Kill()
	if err := b.Canary(b.ctx); err == nil || b.Present(b.ctx) {
		t.Errorf("gone: %v", err)
	}
	b.daemon.Start()
}
