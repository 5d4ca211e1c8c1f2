package engine

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"dunnage/spec"
)

// TestCredentialHelperHangs: a pull doesn't wait for ever for one.
func TestCredentialHelperHangs(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "docker-credential-hangs"), []byte("#!/bin/sh\nexec sleep 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"credsStore": "hangs"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	e := &Engine{cfg: Config{DockerConfig: dir, PullIdle: 100 * time.Millisecond}}
	if _, _, err := e.credentials("registry.example"); !errors.Is(err, spec.ErrUnavailable) {
		t.Errorf("%v", err)
	}
}
