package orchestrator

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"time"

	"dunnage/orchestrator/world"
	"dunnage/spec"
)

// A value that can't be opened any more is set again, as its error says.
func TestSetReplacesDamagedSecret(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	set := func(value string) []spec.SecretChange {
		t.Helper()
		changes, err := s.loop.SetSecrets(t.Context(), spec.SecretRequest{Values: map[string]spec.SecretValue{"db": spec.NewSecretValue([]byte(value))}})
		if err != nil {
			t.Fatal(err)
		}
		return changes
	}
	set("hunter2")
	id := spec.SecretID{Name: "db"}
	damaged, _ := s.loop.state.version(id, 0)
	damaged.Sealed = []byte("rubbish")
	if err := s.loop.cfg.Store.Commit(spec.Commit{Versions: []spec.SecretVersion{damaged}}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.loop.CompareSecret(t.Context(), id, spec.NewSecretValue([]byte("hunter2")), spec.Actor{}); err == nil {
		t.Fatal("it isn't damaged")
	}
	if c := set("hunter2"); c[0].Unchanged || c[0].Version != 2 {
		t.Errorf("%+v", c)
	}
	if same, err := s.loop.CompareSecret(t.Context(), id, spec.NewSecretValue([]byte("hunter2")), spec.Actor{}); err != nil || !same {
		t.Errorf("%v, %v", same, err)
	}
}

// lateStore saves, and says that it couldn't.
type lateStore struct{ Store }

var errLate = errors.New("sync: input/output error")

func (s lateStore) Commit(c spec.Commit) error { return errors.Join(s.Store.Commit(c), errLate) }

// watchedVault notes the key record that it was given last.
type watchedVault struct {
	Vault
	loaded *spec.SecretKey
}

func (v *watchedVault) Load(key *spec.SecretKey) (*spec.SecretKey, error) {
	v.loaded = key
	return v.Vault.Load(key)
}

// After a failure to save new keys the ones that the store has count.
func TestKeysAreAsSaved(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	vault := &watchedVault{Vault: s.loop.cfg.Vault}
	s.loop.cfg.Vault = vault
	s.loop.state.store = lateStore{s.loop.state.store}
	if _, err := s.loop.RotateKey(t.Context(), spec.SecretValue{}, true, spec.Actor{}); !errors.Is(err, errLate) {
		t.Fatalf("%v", err)
	}
	if vault.loaded == nil || !vault.loaded.Compact {
		t.Errorf("opened by %+v, which isn't what the store has", vault.loaded)
	}
}

// Whoever sets a secret is told what brings it to who uses it: also one that
// may be absent, and was, and where the loop has seen the new version first.
func TestSetIsFollowed(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	p := spec.Project{
		Name: "p", Networks: []spec.Network{{Name: "default"}},
		Secrets: []spec.SecretDeclaration{{Name: "key", Store: "key", Optional: true}},
		Services: []spec.Service{{
			Name: "web", Replicas: 1, Update: spec.UpdatePolicy{Order: spec.StartFirst}, Restart: spec.RestartPolicy{Mode: spec.RestartAlways},
			Container: spec.Container{
				Image: "fast", Networks: []spec.Attachment{{Name: "default"}}, Probes: []spec.Probe{{Kind: spec.ProbeRunning}},
				Secrets: []spec.Secret{{Name: "key", Target: spec.SecretDir + "/key", Mode: 0o400}},
			},
		}},
	}
	s.deploy(p)
	s.live(5*time.Second, time.Second)
	set := func(value string, meanwhile func()) {
		t.Helper()
		var changes []spec.SecretChange
		var err error
		before, _ := s.loop.state.secret(spec.SecretID{Name: "key"})
		done := make(chan struct{})
		go func() {
			defer close(done)
			changes, err = s.loop.SetSecrets(s.loop.ctx, spec.SecretRequest{Values: map[string]spec.SecretValue{"key": spec.NewSecretValue([]byte(value))}})
		}()
		for now := before; now.Current == before.Current; now, _ = s.loop.state.secret(spec.SecretID{Name: "key"}) {
			runtime.Gosched()
		}
		meanwhile() // it waits for the loop, having saved
		s.answer(func(context.Context) { <-done })
		if err != nil || len(changes) != 1 || len(changes[0].Operations) != 1 || len(changes[0].UsedBy) != 1 || len(changes[0].Later) != 0 {
			t.Fatalf("%s: %+v, %v", value, changes, err)
		}
	}
	set("first", func() {})
	s.live(5*time.Second, time.Second)
	set("the loop sees it first", func() { s.loop.Step(s.loop.ctx) })
}
