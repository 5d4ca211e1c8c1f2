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

// TestLocked: after a boot, what needs a secret waits until it can be opened, and
// that is no failure of its own; the rest runs.
func TestLocked(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	set := spec.SecretRequest{Values: map[string]spec.SecretValue{"key": spec.NewSecretValue([]byte("v"))}}
	if _, err := s.loop.SetSecrets(t.Context(), set); err != nil {
		t.Fatal(err)
	}
	service := func(name string) spec.Service {
		return spec.Service{
			Name: name, Replicas: 1, Update: spec.UpdatePolicy{Order: spec.StartFirst}, Restart: spec.RestartPolicy{Mode: spec.RestartAlways},
			Container: spec.Container{Image: "fast", Networks: []spec.Attachment{{Name: "default"}}, Probes: []spec.Probe{{Kind: spec.ProbeRunning}}},
		}
	}
	p := spec.Project{
		Name: "p", Services: []spec.Service{service("db"), service("web")}, Networks: []spec.Network{{Name: "default"}},
		Secrets: []spec.SecretDeclaration{{Name: "key", Store: "key"}},
	}
	p.Services[0].Container.Secrets = []spec.Secret{{Name: "key", Target: spec.SecretDir + "/key", Mode: 0o400}}
	s.deploy(p)
	s.live(5*time.Second, time.Second)
	if n := len(s.w.Running()); n != 2 {
		t.Fatalf("%d replicas run, want 2", n)
	}
	const reboot = 4
	s.w.Damage(reboot, 0)
	s.w.Locked = "secrets are locked"
	s.live(10*time.Minute, time.Second)
	running := s.w.Running()
	if len(running) != 1 || !strings.HasPrefix(running[0], "p-web-") {
		t.Errorf("%v run while secrets are locked, want web alone", running)
	}
	status, err := s.loop.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(status.Problems) != 1 || status.Problems[0] != s.w.Locked {
		t.Errorf("problems: %q, want that secrets are locked", status.Problems)
	}
	s.answer(func(ctx context.Context) {
		if _, err := s.loop.Unlock(ctx, spec.SecretValue{}, spec.Actor{}); err != nil {
			t.Error(err)
		}
	})
	s.live(2*time.Second, time.Second)
	if n := len(s.w.Running()); n != 2 {
		t.Errorf("%d replicas run after unlocking, want 2", n)
	}
	for _, r := range s.loop.state.replicaRecords() {
		if r.Restarts > 1 || r.Failures > 0 {
			t.Errorf("%s: %d restarts and %d failures, want the one restart after the boot", r.ID, r.Restarts, r.Failures)
		}
	}
}

// What could only fail for want of secrets is refused at once, and nothing changed.
func TestLockedRefuses(t *testing.T) {
	s := worldWithKey(t, map[string]world.Behaviour{"free": {}, "web": {}})
	defer func() { s.stop() }()
	p := withKey("free", "web")
	p.Services[0].Container.Secrets = nil
	p.Services[1].Replicas = 2
	if op := ask(t, s, p); op.State != spec.OperationDone {
		t.Fatalf("%+v", op)
	}
	setKey(t, s, "two")
	s.w.Locked = "secrets are locked"
	before := s.loop.recordOf("shop")
	for _, r := range []spec.ChangeRequest{
		{Kind: "restart"}, {Kind: "restart", Services: []string{"web"}}, {Kind: "scale", Replicas: map[string]int{"web": 3}}, {Kind: "rollback"},
	} {
		const want = "service web uses secrets, and secrets are locked"
		if _, err := request(s, "shop", r); !errors.Is(err, spec.ErrUnavailable) || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", r, err, want)
		} else if strings.HasSuffix(spec.Text(err), "unavailable") {
			t.Errorf("%+v: nothing else is unavailable: %s", r, spec.Text(err))
		}
		if now := s.loop.recordOf("shop"); now.Next != before.Next || now.Desired != before.Desired {
			t.Errorf("%+v: release %d of %d, want %d of %d", r, now.Desired, now.Next, before.Desired, before.Next)
		}
	}
	for _, r := range []spec.ChangeRequest{{Kind: "scale", Replicas: map[string]int{"web": 1}}, {Kind: "restart", Services: []string{"free"}}} {
		op, err := request(s, "shop", r)
		if err != nil {
			t.Fatalf("%+v: %v", r, err)
		}
		s.live(time.Minute, time.Second)
		if op, err = s.loop.Operation(t.Context(), op.ID); err != nil || op.State != spec.OperationDone {
			t.Errorf("%+v: %+v, %v", r, op, err)
		}
	}
}
