package orchestrator

import (
	"slices"
	"strings"
	"testing"

	"dunnage/orchestrator/world"
	"dunnage/spec"
)

// Events that aren't kept are a problem for as long as they aren't; afterwards an
// event says how many are missing.
func TestUnkeptIsTold(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	book := &notebook{}
	s.loop.events.history = book
	looks := func(why string, lost int) (problems []string) {
		t.Helper()
		book.mu.Lock()
		book.why, book.lost = why, lost
		book.mu.Unlock()
		for range 3 {
			s.loop.Step(t.Context())
		}
		st, err := s.loop.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return slices.DeleteFunc(st.Problems, func(p string) bool { return !strings.Contains(p, "aren't kept") })
	}
	if got := looks("", 0); len(got) > 0 {
		t.Errorf("at first %q", got)
	}
	if got := looks("the disk is odd", 17); len(got) != 1 || !strings.Contains(got[0], "17 are missing so far: the disk is odd; ") {
		t.Errorf("meanwhile %q", got)
	}
	if got := looks("", 18); len(got) > 0 {
		t.Errorf("afterwards %q", got)
	}
	looks("", 1)
	var told []string
	for _, e := range book.all {
		if e.Kind == spec.EventProblem || e.Kind == spec.EventRepaired {
			what, _, _ := strings.Cut(e.Message, "; see")
			told = append(told, string(e.Kind)+" "+what)
		}
	}
	want := []string{
		"problem events aren't kept: the disk is odd",
		"repaired no longer: events aren't kept: the disk is odd; 18 are missing among those that are kept",
		"problem 1 is missing among the events that are kept: more came at once than the disk took",
	}
	if !slices.Equal(told, want) {
		t.Errorf("told\n%q, want\n%q", told, want)
	}
}
