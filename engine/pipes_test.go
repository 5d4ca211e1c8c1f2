package engine

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A shim that waits for the other ends of an exec's pipes, whose agent was killed,
// is let go by the next agent, which removes them.
func TestPipesOfKilledAgent(t *testing.T) {
	b := newBench(t)
	dir := filepath.Join(b.cfg.RunDir, "fifo", "1")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	var handles []int
	for _, name := range []string{"x-stdout", "x-stderr"} {
		path := filepath.Join(dir, name)
		if err := unix.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
		// As the shim does it: what is removed can be opened still.
		fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		handles = append(handles, fd)
	}
	opened := make(chan error, 1)
	go func() {
		for _, fd := range handles { // one after the other, each for writing, then for reading
			for _, mode := range []int{unix.O_WRONLY, unix.O_RDONLY} {
				end, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), mode|unix.O_CLOEXEC, 0)
				if err != nil {
					opened <- err
					return
				}
				defer unix.Close(end)
			}
		}
		opened <- nil
	}()
	b.connect()
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s: %v", dir, err)
	}
	select {
	case err := <-opened:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(pipesHeld):
		t.Error("the pipes weren't let go")
	}
	for _, fd := range handles {
		unix.Close(fd)
	}
}
