package orchestrator

import (
	"context"
	"slices"
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
