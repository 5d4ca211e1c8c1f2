package engine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"dunnage/internal/testenv"
)

// TestBallast: there is room on a full disk once it is given up, and it is taken
// again when there is plenty.
func TestBallast(t *testing.T) {
	dir := testenv.SmallDisk(t, "size=96m,nr_inodes=2000")
	b := &ballast{dir: filepath.Join(dir, "ballast")}
	there := func() bool {
		entries, err := os.ReadDir(b.dir)
		return err == nil && len(entries) == ballastInodes
	}
	full := filepath.Join(dir, "full")
	fillBytes := func() error { // leaves nothing
		err := error(nil)
		f, err := os.Create(full)
		for block := make([]byte, 64<<10); err == nil; {
			_, err = f.Write(block)
		}
		return errors.Join(err, f.Close())
	}
	fillInodes := func() error {
		err := os.Mkdir(full, 0o700)
		for i := 0; err == nil; i++ {
			err = os.WriteFile(filepath.Join(full, fmt.Sprint(i)), nil, 0o600)
		}
		return err
	}
	for what, fill := range map[string]func() error{"bytes": fillBytes, "inodes": fillInodes} {
		if err := b.adjust(); err != nil || !there() {
			t.Fatalf("%s: %v, %v", what, err, there())
		}
		if err := b.adjust(); err != nil || !there() {
			t.Errorf("%s: given up where there is room", what)
		}
		if err := fill(); !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		if err := b.adjust(); err != nil || there() {
			t.Errorf("%s: kept on a full disk: %v, %v", what, err, there())
		}
		if err := os.WriteFile(filepath.Join(dir, "needed"), make([]byte, 1<<20), 0o600); err != nil {
			t.Errorf("%s: nothing fits: %v", what, err)
		}
		if err := b.adjust(); err != nil || there() {
			t.Errorf("%s: taken again on a full disk: %v", what, err)
		}
		if err := errors.Join(os.RemoveAll(full), os.Remove(filepath.Join(dir, "needed"))); err != nil {
			t.Fatal(err)
		}
	}
}

// TestBallastFollowsNoLink: neither one in its place nor one in it leads to files of
// others.
func TestBallastFollowsNoLink(t *testing.T) {
	for name, link := range map[string]func(dir, others string) error{
		"directory": func(dir, others string) error { return os.Symlink(others, dir) },
		"file": func(dir, others string) error {
			return errors.Join(os.Mkdir(dir, 0o700), os.Symlink(filepath.Join(others, "0"), filepath.Join(dir, "0")))
		},
		"no directory": func(dir, _ string) error { return os.WriteFile(dir, nil, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			others := t.TempDir()
			path := filepath.Join(others, "0")
			if err := os.WriteFile(path, []byte("theirs"), 0o600); err != nil {
				t.Fatal(err)
			}
			b := &ballast{dir: filepath.Join(testenv.SmallDisk(t, "size=96m"), "ballast")}
			if err := link(b.dir, others); err != nil {
				t.Fatal(err)
			}
			if err := b.adjust(); err == nil || !strings.Contains(err.Error(), "move it away") {
				t.Errorf("%v, want an error that says what to do", err)
			}
			entries, err := os.ReadDir(others)
			if b, readErr := os.ReadFile(path); err != nil || len(entries) != 1 || string(b) != "theirs" || readErr != nil {
				t.Errorf("others' files: %v, %d bytes, %v, %v", entries, len(b), err, readErr)
			}
		})
	}
}
