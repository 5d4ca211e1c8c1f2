package orchestrator

import (
	"context"
	"errors"
	"slices"
	"testing"

	"dunnage/orchestrator/world"
)

// neighbourhood is a network among rules of others.
type neighbourhood struct {
	*world.World
	problems []string
	err      error
}

func (n *neighbourhood) Problems(context.Context) ([]string, error) { return n.problems, n.err }

// What others have set up is told by the next look, and no longer once it is gone.
func TestForeignRulesAreToldAsTheyAre(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	around := &neighbourhood{World: s.w}
	s.loop.cfg.Network = around
	look := func(want ...string) {
		t.Helper()
		s.loop.Step(t.Context())
		if got := s.loop.status.Load().Problems; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	look()
	around.problems = []string{"a rule drops everything"}
	look("a rule drops everything")
	around.problems = nil
	look()
	around.err = errors.New("broken")
	look("can't look for foreign rules: broken")
	around.err = nil
	look()
}
