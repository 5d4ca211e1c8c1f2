package engine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dunnage/engine/logwriter"
	"dunnage/spec"
)

// TestRemakeLogs: after rm -rf of all logs a writer goes on, but not on a file
// system that the logs don't belong on.
func TestRemakeLogs(t *testing.T) {
	c := Config{StateDir: filepath.Join(t.TempDir(), "state")}
	if err := os.MkdirAll(c.logsDir(), 0o711); err != nil {
		t.Fatal(err)
	}
	home, err := os.Stat(c.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	if made, err := c.remakeLogs(home); made || err != nil {
		t.Errorf("it is there: %v, %v", made, err)
	}
	if err := os.RemoveAll(c.logsDir()); err != nil {
		t.Fatal(err)
	}
	if made, err := c.remakeLogs(home); !made || err != nil {
		t.Errorf("it was removed: %v, %v", made, err)
	}
	path := c.logPath(spec.ReplicaKey{ID: "shop-web-1", Project: "shop", Service: "web"})
	w := logwriter.NewWriter(path, 1<<20, 2)
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}

	if err := os.Rename(c.StateDir, c.StateDir+".old"); err != nil { // as umount -l shows what is below
		t.Fatal(err)
	}
	if made, err := c.remakeLogs(home); made || err == nil {
		t.Errorf("nothing is there: %v, %v", made, err)
	}
	if err := os.Mkdir(c.StateDir, 0o711); err != nil {
		t.Fatal(err)
	}
	if made, err := c.remakeLogs(home); made || err == nil || !strings.Contains(err.Error(), "isn't the directory") {
		t.Errorf("another one is there: %v, %v", made, err)
	}
}
