package orchestrator

import (
	"context"
	"errors"
	"fmt"
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

// stubborn are volumes of which one isn't there, and one stays whatever is asked.
type stubborn struct{ *removals }

func (v stubborn) VolumeExists(_ context.Context, id string) (bool, error) {
	return id != "shop_none", nil
}

func (v stubborn) RemoveVolume(ctx context.Context, id string) error {
	if id == "shop_used" {
		return fmt.Errorf("remove volume shop_used: shop-web mounts it: %w", spec.ErrRefused)
	}
	return v.removals.RemoveVolume(ctx, id)
}

// What was deleted is named, and what couldn't be, with the way to it; what was
// never there isn't.
func TestDownNamesTheVolumes(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	p := valid("shop", "slow")
	for _, name := range []string{"cache", "data", "none", "used"} {
		p.Volumes = append(p.Volumes, spec.Volume{Name: name, ID: "shop_" + name})
	}
	p.Volumes = append(p.Volumes, spec.Volume{Name: "theirs", ID: "theirs", External: true})
	ask(t, s, p)
	s.loop.cfg.Volumes = stubborn{&removals{Volumes: s.loop.cfg.Volumes}}
	op := changed(t, s, spec.ChangeRequest{Kind: "down", Volumes: true})
	if want := []string{"shop_cache", "shop_data"}; op.State != spec.OperationFailed || !slices.Equal(op.Removed, want) {
		t.Errorf("%+v, want removed: %q", op, want)
	}
	if want := "down, but volumes are left: remove volume shop_used: shop-web mounts it; `dunnage down -p shop --volumes` tries again"; op.Cause != want {
		t.Errorf("cause %q, want %q", op.Cause, want)
	}
	if want := []string{"volume theirs is external, and is kept"}; !slices.Equal(op.Warnings, want) {
		t.Errorf("warnings %q, want %q", op.Warnings, want)
	}
	var told []string
	all, _ := s.loop.events.after(0)
	for _, e := range all {
		if e.Kind == spec.EventRemoved && e.Replica == "" {
			told = append(told, e.Message)
		}
	}
	if want := []string{"volume shop_cache removed, with its data", "volume shop_data removed, with its data"}; !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
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
