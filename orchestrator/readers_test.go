package orchestrator

import (
	"context"
	"errors"
	"strings"
	"testing"

	"dunnage/orchestrator/world"
	"dunnage/spec"
)

// fullTables is a network whose rules can't be written.
type fullTables struct{ Network }

func (fullTables) Apply(context.Context, spec.Routing) error { return errors.New("no more memory") }

// TestRulesUnwritten: while the agent can't write rules, nobody is told that it
// repairs them.
func TestRulesUnwritten(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	network := s.loop.cfg.Network
	s.loop.cfg.Network = fullTables{network}
	if err := s.loop.apply(t.Context(), spec.Routing{}); err == nil {
		t.Fatal("it has written them")
	}
	want := func(part string) {
		t.Helper()
		got, err := s.loop.Rules(t.Context())
		if err != nil || !strings.Contains(got.Held, part) || part == "" && got.Held != "" {
			t.Errorf("%q (%v), want %q", got.Held, err, part)
		}
	}
	want("the agent can't write the rules: no more memory; it tries again and again, ")
	s.loop.cfg.Network = network
	if err := s.loop.apply(t.Context(), spec.Routing{}); err != nil {
		t.Fatal(err)
	}
	want("")
}
