package main

import (
	"strings"
	"testing"
	"time"

	"dunnage/spec"
)

// TestWarmAndHeld: until when something is warm or held stands in ps.
func TestWarmAndHeld(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	p := &program{now: func() time.Time { return now }}
	r := spec.ReplicaStatus{State: spec.StateWarm, WarmUntil: now.Add(9*time.Minute + 30*time.Second)}
	if got := p.stateCell(r); got != "warm 9m" {
		t.Errorf("state %q", got)
	}
	if r.WarmUntil = (time.Time{}); p.stateCell(r) != "warm" {
		t.Errorf("state %q before the time is known", p.stateCell(r))
	}
	s := spec.ServiceStatus{Name: "db", Waiting: "0 of 1 ready", HeldUntil: now.Add(7300 * time.Millisecond)}
	if got := strings.Join(p.problems("shop", s, nil), "\n"); got != "db of shop: 0 of 1 ready\ndb of shop: new connections wait, 7.3s more at most" {
		t.Errorf("%s", got)
	}
	s.HeldUntil = now
	if got := strings.Join(p.problems("shop", s, nil), "\n"); strings.Contains(got, "wait,") {
		t.Errorf("%s", got)
	}
}

// TestExitBefore: how its run before ended is no present problem of a replica that
// runs.
func TestExitBefore(t *testing.T) {
	code := 255
	for _, c := range []struct {
		state spec.ReplicaState
		pid   int
		want  string
	}{
		{spec.StateWarm, 812, "before: exit code 255"}, {spec.StateUnreachable, 812, "before: exit code 255"},
		{spec.StateReady, 812, ""}, {spec.StateStopped, 0, "exit code 255"},
	} {
		r := spec.ReplicaStatus{State: c.state, Pid: c.pid, ExitCode: &code}
		if got := (&program{}).replicaDetail(r); got != c.want {
			t.Errorf("%s: %q, want %q", c.state, got, c.want)
		}
	}
}
