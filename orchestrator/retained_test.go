package orchestrator

import (
	"context"
	"errors"
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
