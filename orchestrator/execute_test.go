package orchestrator

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// One project's removals don't hold up what another starts, nor its own.
func TestLimitTakesTurns(t *testing.T) {
	key := func(project string, n int) spec.ReplicaKey {
		return spec.ReplicaKey{ID: fmt.Sprintf("%s-%d", project, n), Project: project}
	}
	var actions []plan.Action
	for n := range 2000 {
		actions = append(actions, plan.Remove{Key: key("big", n)})
	}
	for n := range 3 {
		actions = append(actions, plan.Remove{Key: key("small", n)})
	}
	actions = append(actions, plan.Create{Key: key("big", 9000)}, plan.Start{Key: key("new", 0)}, plan.Stop{Key: key("big", 9001)})
	var got []string
	for _, a := range limit(actions) {
		got = append(got, strings.TrimPrefix(fmt.Sprintf("%T ", a), "plan.")+a.Replica().ID)
	}
	want := []string{"Stop big-9001", "Create big-9000", "Start new-0", "Remove small-0", "Remove big-0", "Remove small-1", "Remove big-1", "Remove small-2", "Remove big-2"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}
