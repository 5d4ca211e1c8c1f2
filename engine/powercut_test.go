package engine

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"

	"dunnage/internal/testenv"
)

// TestPowerCutKeepsTheWritableLayer makes the directories of a layer and looks
// at what the disk has of them.
func TestPowerCutKeepsTheWritableLayer(t *testing.T) {
	testenv.Root(t)
	dir := t.TempDir()
	disk, root := filepath.Join(dir, "disk"), filepath.Join(dir, "root")
	command(t, "truncate", "-s", "64M", disk)
	command(t, "mkfs.ext4", "-q", disk)
	// Without the commits that ext4 makes by itself now and then, only what is
	// asked for gets to the disk.
	mountDisk(t, disk, root, "loop,commit=300")
	upper, work := filepath.Join(root, "snapshots/1/fs"), filepath.Join(root, "snapshots/1/work")
	for _, d := range []string{upper, work} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	err := syncLayer([]mount.Mount{{Type: "overlay", Options: []string{"workdir=" + work, "upperdir=" + upper, "lowerdir=/"}}})
	if err != nil {
		t.Fatal(err)
	}
	later, after := filepath.Join(dir, "later"), filepath.Join(dir, "after")
	command(t, "cp", "--sparse=always", disk, later)
	mountDisk(t, later, after, "loop")
	for _, name := range []string{"fs", "work"} {
		if _, err := os.Stat(filepath.Join(after, "snapshots/1", name)); err != nil {
			t.Errorf("after a power cut: %v", err)
		}
	}
}

func mountDisk(t *testing.T, disk, dir, options string) {
	t.Helper()
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	command(t, "mount", "-t", "ext4", "-o", options, disk, dir)
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
}

func command(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", name, err, out)
	}
}
