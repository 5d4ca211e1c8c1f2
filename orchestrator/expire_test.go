package orchestrator

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"dunnage/orchestrator/world"
	"dunnage/spec"
)

// TestExpire: the newest versions stay, the current one and what a rollback of it
// takes, and those that something pins; an audit entry tells of each that goes.
func TestExpire(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	id := spec.SecretID{Name: "key"}
	set := func(n, keep int) {
		t.Helper()
		value := spec.NewSecretValue(fmt.Appendf(nil, "value %d", n))
		s.answer(func(ctx context.Context) {
			if _, err := s.loop.SetSecrets(ctx, spec.SecretRequest{Values: map[string]spec.SecretValue{"key": value}, Keep: keep}); err != nil {
				t.Error(err)
			}
		})
	}
	want := func(what string, versions ...int) {
		t.Helper()
		all, _, err := s.loop.Secrets(t.Context(), "")
		if err != nil || len(all) != 1 || !slices.Equal(all[0].Versions, versions) {
			t.Errorf("%s: %+v, %v, want the versions %v", what, all, err, versions)
		}
	}
	for n := range 5 {
		set(n, 0)
	}
	want("five were set", 3, 4, 5)
	set(4, 2)
	want("the same again, to keep two", 4, 5)
	if _, err := s.loop.RollbackSecret(t.Context(), id, 0, spec.Actor{}); err != nil {
		t.Fatal(err)
	}
	for _, v := range []int{4, 3, 7} {
		if _, err := s.loop.RollbackSecret(t.Context(), id, v, spec.Actor{}); err == nil {
			t.Errorf("a rollback from 4 to %d is no error", v)
		}
	}
	for _, v := range []int{5, 4} {
		if c, err := s.loop.RollbackSecret(t.Context(), id, v, spec.Actor{}); err != nil || c.Version != v {
			t.Errorf("to %d: %+v, %v", v, c, err)
		}
	}
	set(6, 0)
	want("a new one after a rollback", 4, 5, 6)
	p := spec.Project{
		Name: "p", Secrets: []spec.SecretDeclaration{{Name: "key", Store: "key"}},
		Services: []spec.Service{{
			Name: "web", Replicas: 1, Update: spec.UpdatePolicy{Order: spec.StartFirst}, Restart: spec.RestartPolicy{Mode: spec.RestartAlways},
			Container: spec.Container{Image: "fast", Probes: []spec.Probe{{Kind: spec.ProbeRunning}}, Secrets: []spec.Secret{{Name: "key", Env: "KEY"}}},
		}},
	}
	s.deploy(p)
	s.live(5*time.Second, time.Second)
	for n := 7; n < 10; n++ {
		set(n, 1)
	}
	want("6 runs, 7 is on its way", 6, 7, 8, 9)
	s.live(time.Minute, time.Second)
	set(10, 0)
	s.live(time.Minute, time.Second)
	set(11, 0)
	want("nothing has an earlier one", 10, 11)
	expired := map[int]bool{}
	if err := s.loop.SecretAudit(t.Context(), 1, func(e spec.AuditEntry) error {
		if e.Kind == spec.AuditExpire {
			expired[e.Version] = true
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{1, 2, 3, 4, 5, 6, 7, 8, 9} {
		if !expired[n] {
			t.Errorf("no audit entry tells that version %d expired", n)
		}
	}
}
