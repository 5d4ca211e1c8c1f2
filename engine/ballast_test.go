package engine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
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
