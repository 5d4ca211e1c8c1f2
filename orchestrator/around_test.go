package orchestrator

import (
	"context"
	"errors"
	"slices"
	"testing"

	"dunnage/orchestrator/world"
	"dunnage/spec"
)

// neighbourhood is a network among rules of others.
type neighbourhood struct {
	*world.World
	problems []string
	err      error
}

func (n *neighbourhood) Problems(context.Context) ([]string, error) { return n.problems, n.err }

// wantNext fails for a problem that doesn't end with what to do.
func wantNext(t *testing.T, problems ...string) {
	t.Helper()
	for _, p := range problems {
		if what, next := spec.SplitProblem(p); what == "" || next == "" {
			t.Errorf("%q doesn't say what to do", p)
		}
	}
}

// What others have set up is told by the next look, and no longer once it is
// gone. It is an event when it lasts, and then its end is one too: while somebody
// lays his rules anew, more may seem to stand in the way than does.
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
	var seen uint64
	tells := func(kind spec.EventKind, want ...string) {
		t.Helper()
		var got []string
		for _, e := range told(s, kind, &seen) {
			got = append(got, e.Message)
		}
		if !slices.Equal(got, want) {
			t.Errorf("told %q, want %q", got, want)
		}
	}
	around.problems = []string{"a rule drops everything"}
	look("a rule drops everything")
	around.problems = nil
	look()
	tells(spec.EventProblem)
	around.problems = []string{"a rule drops everything; delete it"}
	look("a rule drops everything; delete it")
	s.w.Advance(aroundPatience)
	look("a rule drops everything; delete it")
	look("a rule drops everything; delete it")
	tells(spec.EventProblem, "a rule drops everything; delete it")
	around.problems = nil
	look()
	tells(spec.EventRepaired, "no longer: a rule drops everything")
	around.err = errors.New("broken")
	look("can't look for foreign rules: broken; the agent goes on trying, and its log says more")
	around.err = nil
	look()
}
