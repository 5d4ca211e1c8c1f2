package engine

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// What an agent that was killed while it noted an image has left goes with the
// next start.
func TestRecentLeavesNothingHalf(t *testing.T) {
	dir := t.TempDir()
	half := filepath.Join(dir, "images.recent.new")
	if err := os.WriteFile(half, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	openRecent(dir, "boot")
	if _, err := os.Stat(half); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}

// What lies in the place of one of the agent's files and never ends doesn't hold
// its start up.
func TestStateFilesThatAreNone(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"images.recent", "containerd.choice"} {
		if err := syscall.Mkfifo(filepath.Join(dir, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if r := openRecent(dir, "boot"); r.lost == nil || !strings.Contains(r.lost.Error(), "images.recent is no regular file: move it away") {
		t.Errorf("images.recent: %v", r.lost)
	}
	if _, err := choose(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "containerd.choice is no regular file: move it away") {
		t.Errorf("containerd.choice: %v", err)
	}
}
