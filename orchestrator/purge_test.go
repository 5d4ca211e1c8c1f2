package orchestrator

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"dunnage/orchestrator/world"
	"dunnage/spec"
)

// removals remembers which volumes were removed.
type removals struct {
	Volumes
	ids []string
}

func (r *removals) RemoveVolume(_ context.Context, id string) error {
	r.ids = append(r.ids, id)
	return nil
}

// Volumes that go with a project go also when the agent dies in between, but
// not when somebody deploys the project again.
func TestVolumesGoAfterACrash(t *testing.T) {
	for name, want := range map[string][]string{"let be": {"shop_data"}, "deployed again": nil} {
		t.Run(name, func(t *testing.T) {
			s := newScenario(1, world.Truth)
			defer func() { s.stop() }()
			p := valid("shop", "slow")
			p.Volumes = []spec.Volume{{Name: "data", ID: "shop_data"}, {Name: "theirs", ID: "theirs", External: true}}
			ask(t, s, p)
			if _, err := request(s, "shop", spec.ChangeRequest{Kind: "down", Volumes: true}); err != nil {
				t.Fatal(err)
			}
			s.loop.Step(t.Context())
			s.start(0) // the agent that was asked is gone
			r := &removals{Volumes: s.loop.cfg.Volumes}
			s.loop.cfg.Volumes = r
			if want == nil {
				s.loop.Step(t.Context())
				ask(t, s, p)
			}
			s.live(time.Minute, time.Second)
			if !slices.Equal(r.ids, want) {
				t.Errorf("removed: %q, want %q\n%s", r.ids, want, s.w)
			}
		})
	}
}

// exist says of all volumes whether they do.
type exist struct {
	*removals
	do bool
}

func (e exist) VolumeExists(context.Context, string) (bool, error) { return e.do, nil }

// Volumes that were kept when the project went down go when they are asked for
// again; where there is none, the project isn't here.
func TestVolumesOfAProjectThatIsDown(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	p := valid("shop", "slow")
	p.Volumes = []spec.Volume{{Name: "data", ID: "shop_data"}, {Name: "theirs", ID: "theirs", External: true}}
	ask(t, s, p)
	if _, err := request(s, "shop", spec.ChangeRequest{Kind: "down"}); err != nil {
		t.Fatal(err)
	}
	s.live(time.Minute, time.Second)
	r := &removals{Volumes: s.loop.cfg.Volumes}
	s.loop.cfg.Volumes = exist{r, true}
	if _, err := request(s, "shop", spec.ChangeRequest{Kind: "down", Volumes: true}); err != nil {
		t.Fatal(err)
	}
	s.live(time.Minute, time.Second)
	if want := []string{"shop_data"}; !slices.Equal(r.ids, want) {
		t.Errorf("removed: %q, want %q\n%s", r.ids, want, s.w)
	}
	s.loop.cfg.Volumes = exist{r, false}
	if _, err := request(s, "shop", spec.ChangeRequest{Kind: "down", Volumes: true}); !errors.Is(err, spec.ErrNotFound) {
		t.Errorf("once more: %v", err)
	}
}

// A rollback that can't be made leaves what is at work at it.
func TestRefusedRollbackEndsNothing(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	op, err := take(t, s, valid("shop", "slow"), spec.Turn{})
	if err != nil {
		t.Fatal(err)
	}
	s.live(2*time.Second, time.Second)
	if _, err := request(s, "shop", spec.ChangeRequest{Kind: "rollback"}); !errors.Is(err, spec.ErrRefused) || !strings.Contains(err.Error(), "dunnage down -p shop") {
		t.Errorf("rollback of a first release: %v", err)
	}
	if now, err := s.loop.Operation(t.Context(), op.ID); err != nil || now.State == spec.OperationFailed {
		t.Errorf("the deploy: %+v, %v", now, err)
	}
}
