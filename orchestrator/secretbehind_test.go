package orchestrator

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"dunnage/orchestrator/world"
	"dunnage/spec"
)

// withKey is a project whose services all use the host's secret "key".
func withKey(services ...string) spec.Project {
	p := spec.Project{Name: "shop", Networks: []spec.Network{{Name: "default"}}, Secrets: []spec.SecretDeclaration{{Name: "key", Store: "key"}}}
	for _, name := range services {
		p.Services = append(p.Services, spec.Service{
			Name: name, Replicas: 1, Update: spec.UpdatePolicy{Order: spec.StartFirst, Deadline: spec.Duration(20 * time.Second)},
			Restart: spec.RestartPolicy{Mode: spec.RestartAlways},
			Container: spec.Container{
				Image: name, Networks: []spec.Attachment{{Name: "default"}}, Probes: []spec.Probe{{Kind: spec.ProbeRunning}},
				Secrets: []spec.Secret{{Name: "key", Target: spec.SecretDir + "/key", Mode: 0o400}},
			},
		})
	}
	return p
}

// worldWithKey is a world whose services behave as they are told, with the secret "key".
func worldWithKey(t *testing.T, behaviours map[string]world.Behaviour) *scenario {
	t.Helper()
	s := &scenario{rng: rand.New(rand.NewPCG(1, 7)), w: world.New(behaviours)}
	s.start(0)
	setKey(t, s, "one")
	return s
}

// setKey sets the secret and lets the world live for a while.
func setKey(t *testing.T, s *scenario, value string) (c spec.SecretChange) {
	t.Helper()
	s.answer(func(ctx context.Context) {
		changes, err := s.loop.SetSecrets(ctx, spec.SecretRequest{Values: map[string]spec.SecretValue{"key": spec.NewSecretValue([]byte(value))}})
		if err != nil || len(changes) != 1 {
			t.Errorf("%+v, %v", changes, err)
			return
		}
		c = changes[0]
	})
	s.live(2*time.Minute, time.Second)
	for i := range c.Operations {
		c.Operations[i], _ = s.loop.Operation(t.Context(), c.Operations[i].ID)
	}
	return c
}

func wantBehind(t *testing.T, s *scenario, want ...spec.SecretUse) {
	t.Helper()
	all, _, err := s.loop.Secrets(t.Context(), "")
	if err != nil || len(all) != 1 || !slices.Equal(all[0].Behind, want) {
		t.Errorf("%+v, %v, want behind: %v", all, err, want)
	}
}

// After a rotation that was rolled back, everybody can see who runs which version,
// and the operation says that the new one stays current.
func TestBehindAfterAFailedRotation(t *testing.T) {
	own := map[string]world.Behaviour{"web": {}}
	s := worldWithKey(t, own)
	defer func() { s.stop() }()
	if op := ask(t, s, withKey("web")); op.State != spec.OperationDone {
		t.Fatalf("%+v", op)
	}
	wantBehind(t, s)
	own["web"] = world.Behaviour{NeverReady: true}
	c := setKey(t, s, "two")
	const says = "; version 2 of key stays current: `dunnage secret rollback key --to 1` takes it back"
	if len(c.Operations) != 1 || c.Operations[0].State != spec.OperationRolledBack || !strings.HasSuffix(c.Operations[0].Cause, says) {
		t.Errorf("%+v", c.Operations)
	}
	wantBehind(t, s, spec.SecretUse{Project: "shop", Version: 1})
	s.answer(func(ctx context.Context) {
		if _, err := s.loop.RollbackSecret(ctx, spec.SecretID{Name: "key"}, 0, spec.Actor{}); err != nil {
			t.Error(err)
		}
	})
	wantBehind(t, s)
}

// To set a secret to what it is brings it to a project that runs another version.
func TestSetBringsTheCurrentVersionAgain(t *testing.T) {
	own := map[string]world.Behaviour{"web": {}}
	s := worldWithKey(t, own)
	defer func() { s.stop() }()
	if op := ask(t, s, withKey("web")); op.State != spec.OperationDone {
		t.Fatalf("%+v", op)
	}
	own["web"] = world.Behaviour{NeverReady: true}
	setKey(t, s, "two")
	own["web"] = world.Behaviour{}
	s.live(time.Minute, time.Second)
	wantBehind(t, s, spec.SecretUse{Project: "shop", Version: 1}) // nothing brings it by itself
	c := setKey(t, s, "two")
	if !c.Unchanged || len(c.Operations) != 1 || c.Operations[0].State != spec.OperationDone {
		t.Errorf("%+v", c)
	}
	wantBehind(t, s)
	if c = setKey(t, s, "two"); !c.Unchanged || len(c.Operations) != 0 {
		t.Errorf("once it is there: %+v", c)
	}
}

// A rollback past a rotation says which values it brings back, and isn't undone
// by the loop.
func TestRollbackWarnsOfEarlierSecrets(t *testing.T) {
	s := worldWithKey(t, map[string]world.Behaviour{"web": {}, "api": {}})
	defer func() { s.stop() }()
	if op := ask(t, s, withKey("web", "api")); op.State != spec.OperationDone {
		t.Fatalf("%+v", op)
	}
	setKey(t, s, "two")
	op, err := request(s, "shop", spec.ChangeRequest{Kind: "rollback"})
	want := []string{"web gets version 1 of the secret key; the current one is 2", "api gets version 1 of the secret key; the current one is 2",
		"release 1 doesn't run any more: the rollback creates 1 replica of web, 1 replica of api; their images are on this host"}
	if err != nil || !slices.Equal(op.Warnings, want) {
		t.Errorf("%q, %v, want %q", op.Warnings, err, want)
	}
	s.live(time.Minute, time.Second)
	wantBehind(t, s, spec.SecretUse{Project: "shop", Version: 1})
	if op, err = request(s, "shop", spec.ChangeRequest{Kind: "rollback", Release: 2}); err != nil || len(op.Warnings) != 1 {
		t.Errorf("forward again: %+v, %v", op, err)
	}
}
