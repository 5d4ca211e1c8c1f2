package store_test

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"dunnage/internal/testenv"
	"dunnage/store"
)

// A state directory whose file system the kernel made read-only isn't taken
// for a damaged store.
func TestOpenReadOnly(t *testing.T) {
	testenv.Root(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "dunnage.db")
	if err := open(t, path).Close(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: its mounts end with the thread
		for _, step := range []func() error{
			func() error { return unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS) },
			func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") },
			func() error { return unix.Mount(dir, dir, "", unix.MS_BIND, "") },
			func() error { return unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "") },
		} {
			if err := step(); err != nil {
				done <- os.NewSyscallError("prepare a read-only directory", err)
				return
			}
		}
		_, err := store.Open(path)
		done <- err
	}()
	err := <-done
	if err == nil || !strings.Contains(err.Error(), path+": read-only file system; make the file system of the state directory writable") {
		t.Errorf("got %v", err)
	}
}
