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

// one is a project of one service.
func one(name, image string) spec.Project {
	return spec.Project{Name: name, Networks: []spec.Network{{Name: "default"}}, Services: []spec.Service{{
		Name: "web", Replicas: 1, Restart: spec.RestartPolicy{Mode: spec.RestartAlways},
		Container: spec.Container{Image: image, Networks: []spec.Attachment{{Name: "default"}}},
	}}}
}

// ask deploys p, lets the world live for a while and returns the operation.
func ask(t *testing.T, s *scenario, p spec.Project) spec.Operation {
	t.Helper()
	op := s.loop.ops.begin(p.Name, "deploy", spec.OperationPulling)
	s.answer(func(ctx context.Context) {
		if err := s.loop.deploy(ctx, op, spec.DeployRequest{Project: p}); err != nil {
			s.loop.end(op, spec.OperationFailed, plain(err), nil)
		}
	})
	s.live(time.Minute, time.Second)
	now, err := s.loop.Operation(t.Context(), op.ID)
	if err != nil {
		t.Fatal(err)
	}
	return now
}

func TestUnknownProject(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	check := func(name, want string) {
		t.Helper()
		_, err := s.loop.Releases(t.Context(), name)
		if !errors.Is(err, spec.ErrNotFound) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	check("shop", "there is none here yet")
	ask(t, s, one("shop", "fast"))
	ask(t, s, one("blog", "slow"))
	check("shp", "did you mean shop? Projects here: blog, shop")
	check("payments", "projects here: blog, shop")
}
