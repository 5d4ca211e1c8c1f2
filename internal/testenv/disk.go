package testenv

import (
	"syscall"
	"testing"
)

// SmallDisk is a directory on a file system of its own, of the size that the
// options of tmpfs give it (such as "size=64k").
func SmallDisk(t testing.TB, options string) (dir string) {
	t.Helper()
	Root(t)
	dir = t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}
