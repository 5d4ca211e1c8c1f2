package engine

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"dunnage/internal/testenv"
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

// TestReplaceOnAFullDisk: what there is no room for leaves the old text, and
// nothing of the new one.
func TestReplaceOnAFullDisk(t *testing.T) {
	dir := testenv.SmallDisk(t, "size=64k")
	path := filepath.Join(dir, "images.recent")
	if err := replaceDurably("recent images rename", path, "old"); err != nil {
		t.Fatal(err)
	}
	if err := replaceDurably("recent images rename", path, strings.Repeat("new", 100_000)); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a text without room: %v", err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(left) != 1 {
		t.Errorf("left are %v, %v", left, err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "old" {
		t.Errorf("%.20s, %v", b, err)
	}
}
