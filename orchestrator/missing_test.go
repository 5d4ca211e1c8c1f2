package orchestrator

import (
	"context"
	"strings"
	"testing"

	"dunnage/orchestrator/world"
	"dunnage/spec"
)

// TestMissingSecret: a secret that isn't there is named with the one that was
// probably meant, of those that the project may use.
func TestMissingSecret(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	for _, id := range []spec.SecretID{{Name: "db-password"}, {Project: "p", Name: "api-token"}, {Project: "other", Name: "licence"}} {
		s.answer(func(ctx context.Context) {
			r := spec.SecretRequest{Project: id.Project, Values: map[string]spec.SecretValue{id.Name: spec.NewSecretValue([]byte("value"))}}
			if _, err := s.loop.SetSecrets(ctx, r); err != nil {
				t.Error(err)
			}
		})
	}
	for name, want := range map[string]string{
		"db-pasword": "the secret db-pasword isn't in the store; did you mean db-password? Else `dunnage secret set db-pasword` puts it there",
		"api-tokne":  "the secret api-tokne isn't in the store; did you mean api-token? Else `dunnage secret set api-tokne` puts it there",
		"license":    "the secret license isn't in the store; `dunnage secret set license` puts it there",
	} {
		var err error
		r := spec.DeployRequest{Project: spec.Project{
			Name: "p", Secrets: []spec.SecretDeclaration{{Name: name, Store: name}},
			Services: []spec.Service{{
				Name: "web", Replicas: 1, Update: spec.UpdatePolicy{Order: spec.StartFirst}, Restart: spec.RestartPolicy{Mode: spec.RestartAlways},
				Container: spec.Container{Image: "fast", Network: spec.NetworkHost, Probes: []spec.Probe{{Kind: spec.ProbeRunning}}, Secrets: []spec.Secret{{Name: name, Env: "KEY"}}},
			}},
		}}
		s.answer(func(ctx context.Context) { _, err = s.loop.Preview(ctx, r) })
		if err == nil || !strings.HasSuffix(spec.Text(err), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
}
