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
