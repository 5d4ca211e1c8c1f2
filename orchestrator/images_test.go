package orchestrator

import (
	"runtime"
	"strings"
	"testing"

	"dunnage/orchestrator/world"
	"dunnage/spec"
)

func TestImagePolicies(t *testing.T) {
	for name, tc := range map[string]struct {
		image string
		edit  func(*spec.Service)
		cause string // "" = deployed
	}{
		"stored, missing":     {"fast", func(*spec.Service) {}, ""},
		"stored, never":       {"fast", func(s *spec.Service) { s.Pull = spec.PullNever }, ""},
		"stored, always":      {"fast", func(s *spec.Service) { s.Pull = spec.PullAlways }, ""},
		"not stored, never":   {"gone", func(s *spec.Service) { s.Pull = spec.PullNever }, "pull_policy is never"},
		"not built":           {"gone", func(s *spec.Service) { s.Build = "docker build -t gone ." }, "build it with `docker build -t gone .`"},
		"built":               {"fast", func(s *spec.Service) { s.Build = "docker build -t fast ." }, ""},
		"the host's platform": {"fast", func(s *spec.Service) { s.Container.Platform = "linux/" + runtime.GOARCH }, ""},
		"another platform":    {"fast", func(s *spec.Service) { s.Container.Platform = "linux/sparc" }, "platform linux/sparc: this host is"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScenario(1, world.Truth)
			defer func() { s.stop() }()
			p := one("shop", tc.image)
			tc.edit(&p.Services[0])
			op := ask(t, s, p)
			if tc.cause == "" && op.State != spec.OperationDone || !strings.Contains(op.Cause, tc.cause) {
				t.Errorf("%s: %q, want %q", op.State, op.Cause, tc.cause)
			}
		})
	}
}
