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

// fullDisk keeps no images for a release.
type fullDisk struct{ Images }

func (fullDisk) Retain(context.Context, string, []spec.PinnedImage) error {
	return errors.New("no space left on device")
}

// keyed is a project whose one service uses the host's secret "key".
func keyed(name string, on spec.OnSecretChange) spec.Project {
	p := one(name, "fast")
	p.Secrets = []spec.SecretDeclaration{{Name: "key", Store: "key"}}
	p.Services[0].Container.Secrets = []spec.Secret{{Name: "key", Target: spec.SecretDir + "/key", Mode: 0o400}}
	p.Services[0].OnSecretChange = on
	return p
}

func (s *scenario) set(t *testing.T, value string) spec.SecretChange {
	t.Helper()
	var changes []spec.SecretChange
	var err error
	s.answer(func(ctx context.Context) {
		changes, err = s.loop.SetSecrets(ctx, spec.SecretRequest{Values: map[string]spec.SecretValue{"key": spec.NewSecretValue([]byte(value))}})
	})
	if err != nil {
		t.Fatal(err)
	}
	return changes[0]
}

// TestRenewalThatFails: new versions that can't be brought in, for a full disk,
// hold nobody else up, and come when they can.
func TestRenewalThatFails(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	s.set(t, "1")
	for _, p := range []spec.Project{keyed("shop", ""), one("blog", "fast")} {
		if op := ask(t, s, p); op.State != spec.OperationDone {
			t.Fatalf("%+v", op)
		}
	}
	images := s.loop.cfg.Images
	s.loop.cfg.Images = fullDisk{images}
	if c := s.set(t, "2"); len(c.Operations) != 1 || c.Operations[0].State != spec.OperationFailed || !strings.Contains(c.Operations[0].Cause, "no space left") || !strings.Contains(c.Operations[0].Cause, "the agent tries again") {
		t.Errorf("%+v", c)
	}
	const kill = 1
	for i := range 2 { // of whichever project
		s.w.Damage(kill, i)
	}
	s.live(30*time.Second, time.Second)
	if n := len(s.w.Running()); n != 2 {
		t.Errorf("%d replicas run, want 2 whatever fails for secrets\n%s", n, s.w)
	}
	if n := len(s.loop.ops.since(0, renewal)); n > 5 {
		t.Errorf("%d tries in half a minute", n)
	}
	s.loop.cfg.Images = images
	s.live(30*time.Second, time.Second)
	if behind := s.loop.behind(spec.SecretID{Name: "key"}); len(behind) > 0 {
		t.Errorf("%v have yet to get the secret", behind)
	}
}

// TestSetAmongRollouts: whoever sets a secret while its project is at work on
// something follows an operation that tells what came of this version.
func TestSetAmongRollouts(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	s.set(t, "1")
	if op := ask(t, s, keyed("shop", "")); op.State != spec.OperationDone {
		t.Fatalf("%+v", op)
	}
	first, second := s.set(t, "2"), s.set(t, "3")
	if len(first.Operations) != 1 || len(second.Operations) != 1 || second.Operations[0].State != spec.OperationWaiting || len(second.Later) > 0 {
		t.Fatalf("%+v\n%+v", first, second)
	}
	s.live(30*time.Second, time.Second)
	for _, op := range []string{first.Operations[0].ID, second.Operations[0].ID} {
		if got, ok := s.loop.ops.find(op); !ok || got.State != spec.OperationDone {
			t.Errorf("%s: %+v", op, got)
		}
	}
	if pin := s.loop.present("shop").Secrets["web"]["key"]; pin.Version != 3 {
		t.Errorf("shop has version %d", pin.Version)
	}
}

// TestSetDuringTheWayBack: a version that came while a release with the one before
// failed hasn't been tried, and is.
func TestSetDuringTheWayBack(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	s.set(t, "1")
	if op := ask(t, s, keyed("shop", "")); op.State != spec.OperationDone {
		t.Fatalf("%+v", op)
	}
	bad := keyed("shop", "")
	bad.Services[0].Container.Image = "crashing"
	s.deploy(bad)
	c := s.set(t, "2")
	if len(c.Operations) != 1 {
		t.Fatalf("%+v", c)
	}
	s.live(3*time.Minute, time.Second)
	got, _ := s.loop.ops.find(c.Operations[0].ID)
	if pin := s.loop.present("shop").Secrets["web"]["key"]; pin.Version != 2 || got.State != spec.OperationDone {
		t.Errorf("shop has version %d: %+v", pin.Version, got)
	}
}
