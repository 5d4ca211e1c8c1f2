package engine

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A link that leads nowhere in the place of a directory is named, with where it leads.
func TestPrepareNamesALinkToNowhere(t *testing.T) {
	for _, name := range []string{"run/started", "state/volumes", "state/logs"} {
		dir := t.TempDir()
		cfg := Config{Address: "/nowhere", StateDir: dir + "/state", RunDir: dir + "/run", LogBinary: os.Args[0], InitBinary: os.Args[0]}
		link := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(link), 0o700), os.Symlink("/nonexist", link)); err != nil {
			t.Fatal(err)
		}
		if err := cfg.prepare(); err == nil || !strings.Contains(err.Error(), link+" is a link to /nonexist, which isn't there") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
