package engine

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
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
