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
