package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"dunnage/orchestrator/world"
	"dunnage/spec"
)

// keeper remembers what is retained.
type keeper struct {
	Images
	names []string
	fail  bool
}

func (k *keeper) Retained(context.Context) ([]string, error) {
	if k.fail {
		return nil, errors.New("not now")
	}
	return slices.Clone(k.names), nil
}

func (k *keeper) Retain(_ context.Context, name string, images []spec.PinnedImage) error {
	k.names = slices.DeleteFunc(k.names, func(n string) bool { return n == name })
	if len(images) > 0 {
		k.names = append(k.names, name)
	}
	return nil
}

// What an agent retained before it died, and never recorded, is let go of once
// the next one has looked; what is recorded stays.
func TestStrayRetentionIsLetGo(t *testing.T) {
	s := newScenario(1, world.Truth)
	s.deploy(one("web", "fast"))
	k := &keeper{Images: s.loop.cfg.Images, names: []string{"web-release-1", "web-release-2", "gone-release-1"}, fail: true}
	s.loop.cfg.Images, s.loop.letGone = k, false
	s.loop.Step(t.Context())
	if len(k.names) != 3 {
		t.Fatalf("retained after a failure: %q", k.names)
	}
	k.fail = false
	s.loop.Step(t.Context())
	if !slices.Equal(k.names, []string{"web-release-1"}) {
		t.Errorf("retained: %q", k.names)
	}
}

// dumb is a containerd that hangs.
type dumb struct{ Images }

func (dumb) Retain(context.Context, string, []spec.PinnedImage) error {
	return fmt.Errorf("retain the images of shop-release-2: %w", context.DeadlineExceeded)
}

func (dumb) Resolve(context.Context, string) (spec.PinnedImage, error) {
	return spec.PinnedImage{}, fmt.Errorf("look up an image: %w", context.DeadlineExceeded)
}

func (dumb) Hold(context.Context, string, string) (spec.PinnedImage, error) {
	return spec.PinnedImage{}, fmt.Errorf("look up an image: %w", context.DeadlineExceeded)
}

// Changes that a hanging containerd is needed for change nothing, and say so in
// the words of its other problems.
func TestChangesWithASilentEngine(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	p := one("shop", "fast")
	p.Services[0].Update.Order = spec.StartFirst
	if op := ask(t, s, p); op.State != spec.OperationDone {
		t.Fatalf("deploy: %+v", op)
	}
	want := errUnanswered.Error() + "; nothing was changed: do it again once `dunnage doctor` finds that containerd answers"
	s.loop.cfg.Images = dumb{s.loop.cfg.Images}
	before, _ := s.loop.state.project("shop")
	for _, r := range []spec.ChangeRequest{
		{Kind: "restart"},
		{Kind: "scale", Replicas: map[string]int{p.Services[0].Name: 3}},
		{Kind: "rollback", Release: 1},
	} {
		var err error
		s.answer(func(ctx context.Context) { _, err = s.loop.Change(ctx, "shop", r) })
		text := ""
		if err != nil {
			text = spec.Text(err)
		}
		if !errors.Is(err, spec.ErrUnavailable) || text != want {
			t.Errorf("%s: %v", r.Kind, err)
		}
	}
	p.Services[0].Container.Environment = []string{"V=2"}
	if op := ask(t, s, p); op.State != spec.OperationFailed || op.Cause != want {
		t.Errorf("deploy: %s: %s", op.State, op.Cause)
	}
	if after, _ := s.loop.state.project("shop"); after.Desired != before.Desired || after.Next != before.Next {
		t.Errorf("it was %+v, and is %+v", before, after)
	}
}
