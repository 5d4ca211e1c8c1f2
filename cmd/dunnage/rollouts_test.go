package main

import (
	"bytes"
	"testing"

	"dunnage/spec"
)

func TestRolloutBars(t *testing.T) {
	p := &program{stderr: &bytes.Buffer{}, terminal: terminal{stderr: true, width: 60}}
	s := p.newProgress()
	defer s.close()
	web := spec.ServiceStatus{Name: "web", Wanted: 3, Ready: 1, Waiting: "1 of 3 ready; web-2: no answer"}
	s.rollouts.show(spec.ProjectStatus{Services: []spec.ServiceStatus{web}})
	if len(s.rollouts.bars) != 0 {
		t.Error("a project that isn't rolling has a bar")
	}
	s.rollouts.show(spec.ProjectStatus{Rolling: true, Services: []spec.ServiceStatus{web, {Name: "db", Wanted: 1, Ready: 1}}})
	if len(s.rollouts.bars) != 1 || s.rollouts.bars["web"] == nil {
		t.Fatalf("bars: %v", s.rollouts.bars)
	}
	if b := s.rollouts.bars["web"]; b.bar.Current() != 1 || b.waiting.Load() != "web-2: no answer" {
		t.Errorf("%d, %q", b.bar.Current(), b.waiting.Load())
	}
}

// What waits for somebody's word is told once, and again when it does so anew.
func TestStandstills(t *testing.T) {
	var out bytes.Buffer
	p := &program{stderr: &out}
	s := p.newProgress()
	defer s.close()
	svc := func(trial int) []spec.ServiceStatus {
		return []spec.ServiceStatus{{Name: "db", Wanted: 1, Ready: 1}, {Name: "web", Wanted: 3, Ready: 1, Trial: trial, Waiting: "canary"}}
	}
	canary := "web: canary: 1 of 3; `dunnage promote -p shop` goes on, `dunnage rollback -p shop` goes back\n"
	paused := "shop: paused (on request); `dunnage rollout resume -p shop` goes on, `dunnage rollback -p shop` goes back\n"
	for _, step := range []struct {
		is   spec.ProjectStatus
		want string
	}{
		{spec.ProjectStatus{Services: svc(0)}, ""},
		{spec.ProjectStatus{Services: svc(1)}, canary},
		{spec.ProjectStatus{Services: svc(1)}, ""},
		{spec.ProjectStatus{Services: svc(1), Paused: "on request"}, paused},
		{spec.ProjectStatus{Services: svc(1), Paused: "on request"}, ""},
		{spec.ProjectStatus{Services: svc(1)}, canary},
		{spec.ProjectStatus{Services: svc(0)}, ""},
	} {
		out.Reset()
		step.is.Name, step.is.Rolling = "shop", true
		s.rollouts.tell(step.is)
		if out.String() != step.want {
			t.Errorf("%+v: %q, want %q", step.is, out.String(), step.want)
		}
	}
}

// What a resume or a promotion let go on is paused, not they.
func TestPausedAgain(t *testing.T) {
	op := spec.Operation{Project: "shop", Kind: "resume", State: spec.OperationPaused, Release: 4, Cause: "web-1 exited with code 1"}
	if got, want := lastLine(op), "shop: rollout paused, release 4, after 0.0s"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := verdict(op).Error(), "the rollout of shop is paused: web-1 exited with code 1"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
