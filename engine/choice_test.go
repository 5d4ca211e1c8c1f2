package engine

import (
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"dunnage/spec"
)

// TestAutoKeepsToItsContainerd: a containerd that is being upgraded isn't
// exchanged for an empty one.
func TestAutoKeepsToItsContainerd(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "c.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	cfg := ManagedConfig{StateDir: filepath.Join(t.TempDir(), "state"), RunDir: t.TempDir(), Binary: "false"}
	for _, mode := range []string{"unix://" + socket, ModeAuto} {
		address, managed, err := Dial(t.Context(), mode, cfg)
		if address != socket || managed != nil || err != nil {
			t.Errorf("%s: %q, %v, %v", mode, address, managed, err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	_, _, err = Dial(t.Context(), ModeAuto, cfg)
	if !errors.Is(err, spec.ErrUnavailable) || !strings.Contains(err.Error(), socket) {
		t.Errorf("with its containerd down: %v", err)
	}
}
