package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"dunnage/orchestrator/world"
	"dunnage/spec"
)

// A slow containerd is told of, a gone one is waited for, a wedged one is
// restarted, with growing pauses.
func TestVigil(t *testing.T) {
	const patience = 30 * time.Second
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	no := fmt.Errorf("no answer within 30s: %w", spec.ErrUnavailable)
	v := &vigil{patience: patience}
	sing := func(took time.Duration, answered, present bool, err error) {
		began := now
		now = now.Add(took)
		v.take(canary{began: began, ended: now, answered: answered, present: present, err: err})
	}
	says := func(due bool, want string) {
		t.Helper()
		if v.due(now) != due {
			t.Errorf("to be restarted: %t", !due)
		}
		if got := v.problem(now); (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("says %q, want %q", got, want)
		} else if got != "" {
			wantNext(t, got)
		}
	}
	sing(2*time.Millisecond, true, true, nil)
	says(false, "")
	sing(25*time.Second, true, true, nil) // however slow, it answers
	says(false, "containerd is slow: a write to its database took 25s")
	sing(time.Second, true, true, errors.New("no space left on device"))
	says(false, "answers with an error: no space left")

	sing(time.Second, false, false, no) // somebody has stopped it
	now = now.Add(10 * time.Minute)
	sing(time.Second, false, false, no)
	says(false, "gone for 10m2s")
	sing(time.Second, false, true, no) // it starts, and hasn't got its time yet
	says(false, "")
	sing(patience, false, true, no)
	says(true, "wedged: no answer for 10m33s (no answer within 30s")

	v.restarted(now, nil)
	now = now.Add(time.Second)
	if got := v.problem(now); strings.Contains(got, "wedged") {
		t.Errorf("of one that begins it says %q", got)
	}
	says(false, "was restarted once and has yet to answer")
	if v.looked = now; !v.restarting(now) {
		t.Error("nobody says that it is being restarted")
	}
	says(false, "") // a look has found that it answers
	v.looked = time.Time{}
	now = now.Add(-time.Second)
	sing(patience, false, true, no)
	says(false, "restarted once; the next restart is in 30s")
	sing(patience, false, true, no)
	says(true, "restarted once")
	v.restarted(now, errors.New("it hangs in the kernel"))
	now = now.Add(119 * time.Second)
	sing(0, false, true, no)
	says(false, "to restart it failed: it hangs in the kernel; the next restart is in 1s")
	now = now.Add(time.Second)
	says(true, "it hangs in the kernel")
	for range 20 {
		v.restarted(now, nil)
	}
	if pause := v.next.Sub(now); pause != longestRestartPause {
		t.Errorf("the pause has grown to %s", pause)
	}
	sing(time.Millisecond, true, true, nil)
	says(false, "")
	now = now.Add(longestRestartPause + time.Second)
	sing(time.Millisecond, true, true, nil)
	if v.tries != 0 {
		t.Errorf("healthy for long, it has %d tries behind it", v.tries)
	}
	sing(patience, false, true, no)
	v.restarted(now, spec.ErrRefused)
	says(false, "--containerd-restart")
}

// lazy is a containerd that answers nobody until it is restarted.
type lazy struct{ restarts, canaries atomic.Int32 }

func (z *lazy) Canary(ctx context.Context) error {
	z.canaries.Add(1)
	if z.restarts.Load() > 0 {
		return nil
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

func (z *lazy) Present(context.Context) bool { return true }

func (z *lazy) Restart(context.Context) error {
	z.restarts.Add(1)
	return nil
}

func TestGuard(t *testing.T) {
	s := newScenario(1, world.Truth)
	s.loop.guard = newGuard(20 * time.Millisecond)
	s.loop.cfg.Clock = wallClock{}
	z := &lazy{}
	done := make(chan struct{})
	go func() { defer close(done); s.loop.Guard(z) }()
	for deadline := time.Now().Add(20 * time.Second); z.restarts.Load() == 0 || z.canaries.Load() < 2; time.Sleep(5 * time.Millisecond) {
		s.loop.guard.suspect()
		if time.Now().After(deadline) {
			t.Fatalf("%d restarts", z.restarts.Load())
		}
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, answers := s.loop.Latency(); answers {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it doesn't notice that it answers")
		}
	}
	s.stop()
	<-done
	evs, _ := s.loop.events.after(0)
	if n := z.restarts.Load(); n != 1 || len(evs) != 1 || evs[0].Kind != spec.EventRepaired || !strings.HasPrefix(evs[0].Message, "containerd restarted: containerd is wedged: no answer for ") {
		t.Errorf("%d restarts, events %+v", n, evs)
	}
}

// obeyed is a containerd that nobody may restart, and whose owner does after a while.
type obeyed struct{ lazy }

func (o *obeyed) Restart(ctx context.Context) error {
	return errors.Join(o.lazy.Restart(ctx), spec.ErrRefused)
}

// A containerd that answers again without the agent is told of as well.
func TestGuardTellsTheEnd(t *testing.T) {
	s := newScenario(1, world.Truth)
	s.loop.guard = newGuard(20 * time.Millisecond)
	s.loop.cfg.Clock = wallClock{}
	done := make(chan struct{})
	go func() { defer close(done); s.loop.Guard(new(obeyed)) }()
	var evs []spec.Event
	for deadline := time.Now().Add(20 * time.Second); len(evs) < 2; time.Sleep(5 * time.Millisecond) {
		s.loop.guard.suspect()
		if evs, _ = s.loop.events.after(0); time.Now().After(deadline) {
			t.Fatalf("told %+v", evs)
		}
	}
	s.stop()
	<-done
	what, next := spec.SplitProblem(evs[0].Message)
	if evs[0].Kind != spec.EventProblem || !strings.HasPrefix(what, "containerd is wedged: no answer for ") || !strings.Contains(next, "--containerd-restart") ||
		evs[1].Kind != spec.EventRepaired || evs[1].Message != "no longer: "+what || len(evs) != 2 {
		t.Errorf("told %+v", evs)
	}
}

// A containerd that died is told of and counted as one that was restarted.
func TestEngineDied(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	s.loop.EngineDied("containerd (process 7) died (signal: killed)")
	evs, _ := s.loop.events.after(0)
	if len(evs) != 1 || evs[0].Kind != spec.EventProblem || !strings.HasPrefix(evs[0].Message, "containerd (process 7) died (signal: killed); ") {
		t.Errorf("events: %+v", evs)
	}
	if n := s.loop.Counted().EngineRestarts; n != 1 {
		t.Errorf("%d restarts counted", n)
	}
}

type wallClock struct{}

func (wallClock) Now() time.Time { return time.Now() }
