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

// TestResetKey: a store whose key is lost begins anew. What runs goes on, what
// needs a secret waits, and gets the new values by itself when all are set.
func TestResetKey(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	var changes []spec.SecretChange
	set := func(name string) {
		t.Helper()
		s.answer(func(ctx context.Context) {
			var err error
			if changes, err = s.loop.SetSecrets(ctx, spec.SecretRequest{Values: map[string]spec.SecretValue{name: spec.NewSecretValue([]byte(name))}}); err != nil {
				t.Error(err)
			}
		})
	}
	set("one")
	set("two")
	p := spec.Project{
		Name: "p", Networks: []spec.Network{{Name: "default"}},
		Secrets: []spec.SecretDeclaration{{Name: "one", Store: "one"}, {Name: "two", Store: "two"}},
		Services: []spec.Service{{
			Name: "web", Replicas: 1, Update: spec.UpdatePolicy{Order: spec.StartFirst}, Restart: spec.RestartPolicy{Mode: spec.RestartAlways},
			Container: spec.Container{
				Image: "fast", Networks: []spec.Attachment{{Name: "default"}}, Probes: []spec.Probe{{Kind: spec.ProbeRunning}},
				Secrets: []spec.Secret{{Name: "one", Target: spec.SecretDir + "/one", Mode: 0o400}, {Name: "two", Target: spec.SecretDir + "/two", Mode: 0o400}},
			},
		}},
	}
	s.deploy(p)
	s.live(5*time.Second, time.Second)
	before := s.w.Running()
	uid := 1234
	by := spec.Actor{UID: &uid, User: "ann"}
	if _, err := s.loop.ResetKey(s.loop.ctx, spec.SecretValue{}, by); !errors.Is(err, spec.ErrRefused) {
		t.Fatalf("reset of secrets that aren't locked: %v", err)
	}
	s.w.Locked = "secrets are locked: lost"
	s.answer(func(ctx context.Context) {
		if _, err := s.loop.ResetKey(ctx, spec.SecretValue{}, by); err != nil {
			t.Error(err)
		}
	})
	if all, key, err := s.loop.Secrets(t.Context(), ""); err != nil || len(all) != 0 || key.Locked != "" {
		t.Fatalf("%+v %+v %v", all, key, err)
	}
	var noted []string
	if err := s.loop.SecretAudit(t.Context(), 1, func(e spec.AuditEntry) error {
		if e.User == "ann" && e.Refused == "" {
			noted = append(noted, strings.TrimSpace(string(e.Kind)+" "+e.Secret+" "+e.Detail))
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if want := []string{"reset-key  2 secrets given up", "remove one its key is lost", "remove two its key is lost"}; !slices.Equal(noted, want) {
		t.Errorf("audit: %q, want %q", noted, want)
	}
	s.live(5*time.Second, time.Second)
	if now := s.w.Running(); !slices.Equal(now, before) {
		t.Errorf("%v run, want %v", now, before)
	}

	const reboot = 4
	s.w.Damage(reboot, 0)
	s.live(time.Minute, time.Second)
	if now := s.w.Running(); len(now) != 0 {
		t.Errorf("%v run without their secrets", now)
	}
	status, err := s.loop.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if waiting := status.Projects[0].Services[0].Waiting; !strings.Contains(waiting, "the secret one isn't in the store; `dunnage secret set one` puts it there") {
		t.Errorf("waits for %q", waiting)
	}
	set("one")
	if len(changes) != 1 || len(changes[0].Operations) != 0 || !slices.Equal(changes[0].Later, []string{"p"}) {
		t.Errorf("the first of two: %+v", changes)
	}
	s.live(5*time.Second, time.Second)
	set("two")
	if len(changes) != 1 || len(changes[0].Operations) != 1 {
		t.Errorf("the last of two: %+v", changes)
	}
	s.live(time.Minute, time.Second)
	if now := s.w.Running(); len(now) != 1 {
		t.Errorf("%v run, want one replica", now)
	}
}
