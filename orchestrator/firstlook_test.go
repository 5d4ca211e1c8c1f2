package orchestrator

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"dunnage/orchestrator/world"
	"dunnage/spec"
)

func TestReadersWaitForTheFirstLook(t *testing.T) {
	s := newScenario(1, world.Truth)
	t.Cleanup(func() { s.stop() })
	soon := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	change := func(ctx context.Context) error {
		_, err := s.loop.Change(ctx, "shop", spec.ChangeRequest{Kind: "down"})
		return err
	}
	says := func(err error, want string) {
		t.Helper()
		if !errors.Is(err, spec.ErrUnavailable) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	_, err := s.loop.Status(soon())
	says(err, "the agent hasn't looked yet: no look has ended within ")
	s.w.Restart(1, false, 0)
	_ = s.w.Create(t.Context(), spec.CreateRequest{}) // dies in it: nothing answers any more
	s.loop.Step(t.Context())
	_, err = s.loop.Status(soon())
	says(err, "the agent hasn't looked yet: look at containers: ")
	s.w.Restart(0, false, 0)
	s.loop.Step(t.Context())
	if st, err := s.loop.Status(soon()); err != nil || !st.Started.Equal(s.loop.began) {
		t.Errorf("after a look: %+v, %v", st, err)
	}
	says(change(soon()), "the agent is busy: no answer within ")
	s.stop()
	says(change(t.Context()), "the agent is stopping")
}

// A deploy that is pulling ends with its agent.
func TestStoppedAgentEndsDeploys(t *testing.T) {
	s := newScenario(1, world.Truth)
	op, err := s.loop.Deploy(t.Context(), spec.DeployRequest{Project: valid("shop", "fast")})
	if err != nil {
		t.Fatal(err)
	}
	s.stop() // nobody serves the loop: the deploy waits for it
	s.loop.jobs.Wait()
	if op, err = s.loop.Operation(t.Context(), op.ID); err != nil || op.Cause != "the agent was stopped" {
		t.Errorf("%+v, %v", op, err)
	}
}
