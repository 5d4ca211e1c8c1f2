package orchestrator

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"

	"dunnage/orchestrator/world"
	"dunnage/spec"
)

// request asks for a change as the API does.
func request(s *scenario, project string, r spec.ChangeRequest) (op spec.Operation, err error) {
	s.answer(func(ctx context.Context) { op, err = s.loop.Change(ctx, project, r) })
	return op, err
}

// What can't be is refused before anything is touched, with the way on.
func TestRefusedChangesNothing(t *testing.T) {
	own := maps.Clone(images)
	s := &scenario{rng: rand.New(rand.NewPCG(1, 7)), w: world.New(own)}
	s.start(0)
	defer func() { s.stop() }()
	for _, image := range []string{"fast", "slow"} {
		if op := ask(t, s, valid("shop", image)); op.State != spec.OperationDone {
			t.Fatalf("%+v", op)
		}
	}
	delete(own, "fast") // somebody removed the image of release 1
	before := s.w.String()
	for name, c := range map[string]struct {
		r    spec.ChangeRequest
		want string
	}{
		"image gone":       {spec.ChangeRequest{Kind: "rollback"}, "`dunnage image pull fast@fast` gets it back, or `dunnage image load FILE` without a registry"},
		"more than may be": {spec.ChangeRequest{Kind: "scale", Replicas: map[string]int{"web": spec.MaxReplicas + 1}}, "0 to 1000 are possible"},
		"no addresses":     {spec.ChangeRequest{Kind: "scale", Replicas: map[string]int{"web": 254}}, "need 255 addresses, and a subnet of the pool 10.9.0.0/16 has 254; use fewer replicas"},
		"less than none":   {spec.ChangeRequest{Kind: "scale", Replicas: map[string]int{"web": -1}}, "0 or more"},
	} {
		if _, err := request(s, "shop", c.r); !errors.Is(err, spec.ErrRefused) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	many := valid("shop", "slow")
	many.Services[0].Replicas = 254
	if op := ask(t, s, many); op.State != spec.OperationFailed || op.Release != 0 || len(op.Services) != 0 || !strings.Contains(op.Cause, "need 255 addresses") {
		t.Errorf("a deploy without addresses: %+v", op)
	}
	if after := s.w.String(); after != before {
		t.Errorf("the world was\n%s\nand is\n%s", before, after)
	}
	if releases, err := s.loop.Releases(t.Context(), "shop"); err != nil || len(releases) != 2 || releases[0].State != spec.ReleaseCurrent {
		t.Errorf("releases: %+v, %v", releases, err)
	}
	if st, err := s.loop.Status(t.Context()); err != nil || len(st.Projects) != 1 || st.Projects[0].Busy != "" {
		t.Errorf("status: %+v, %v", st, err)
	}
}
