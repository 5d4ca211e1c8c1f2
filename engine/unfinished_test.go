package engine

import (
	"os"
	"path/filepath"
	"testing"
)

// What an agent that was killed had begun to fill or to delete goes with the
// next start; volumes, configs and complete records stay.
func TestUnfinishedIsRemoved(t *testing.T) {
	dir := t.TempDir()
	c := Config{StateDir: dir}
	started := filepath.Join(dir, "started")
	stay := []string{filepath.Join(c.volumesDir(), "shop-data", dataDir), c.filesDir("shop-web-1"), filepath.Join(c.anonymousDir(), "shop-web-1"), filepath.Join(started, "shop-web-1.json")}
	left := []string{filepath.Join(c.volumesDir(), ".new-123", dataDir), filepath.Join(c.volumesDir(), ".removed-shop-old"), c.filesDir(".removed-shop-web-2"), filepath.Join(started, ".tmp-5")}
	for _, path := range append(stay, left...) {
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.clearTrees(); err != nil {
		t.Fatal(err)
	}
	if _, err := newStartRecords(started); err != nil {
		t.Fatal(err)
	}
	for _, path := range stay {
		if _, err := os.Stat(path); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	for _, path := range left {
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("%s is still there: %v", path, err)
		}
	}
}
