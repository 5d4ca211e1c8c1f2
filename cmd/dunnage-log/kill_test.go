package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dunnage/engine/logwriter"
	"dunnage/internal/testenv"
)

// TestKilledInRotation kills the program at each call that changes a name, in
// the first rotations and in those that fill every number, and starts another on
// what it left: no line between others is missing, none is there twice, and the
// bound holds.
func TestKilledInRotation(t *testing.T) {
	testenv.Root(t)
	for _, call := range []struct {
		name  string
		first int  // the calls before are those of the start
		only  bool // those on the log itself
	}{
		{name: "renameat", first: 1},
		{name: "unlinkat", first: 3},
		{name: "openat", first: 2, only: true}, // of the new file
	} {
		t.Run(call.name, func(t *testing.T) {
			const most = 15 // three files are full after six rotations of at most four calls
			kills := 0
			for n := call.first; n < call.first+most; n++ {
				path := filepath.Join(t.TempDir(), "log")
				args := []string{"-f", "-qq", "-o", os.DevNull, "-e", "trace=" + call.name, "-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", call.name, n)}
				if call.only {
					args = append(args, "-P", path)
				}
				if killedAt(t, path, args) {
					kills++
				}
			}
			if kills < most*2/3 {
				t.Errorf("%d kills of %d", kills, most)
			}
		})
	}
}

// killedAt reports whether a log writer under strace was killed while it
// rotated, and checks what it left.
func killedAt(t *testing.T, path string, strace []string) bool {
	t.Helper()
	const size, files = 4 << 10, 3
	writer := []string{"path", path, "size", fmt.Sprint(size), "files", fmt.Sprint(files), "gzip", "off"}
	r, w := pipe(t)
	none, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("strace", append(append(strace, testenv.Program(t, "./cmd/dunnage-log")), writer...)...)
	ready := launch(t, cmd, r, none)
	if _, err := io.ReadFull(ready, make([]byte, 1)); err != nil { // strace holds the other end too
		t.Fatal(err)
	}
	for i := range 1000 { // some 30 rotations; the writer may be gone by now
		if _, err := fmt.Fprintf(w, "line number %06d %s\n", i, strings.Repeat("x", 60)); err != nil {
			break
		}
		if i%20 == 19 { // a write to the file of its own
			time.Sleep(time.Millisecond)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if cmd.Wait() == nil {
		return false
	}

	before := numbers(t, path, files)
	l := start(t, writer...)
	fmt.Fprintln(l.stdout, "line number 900000")
	l.end(t)
	after := numbers(t, path, files)
	if len(before) < size/150 {
		t.Errorf("%q: %d lines are left", strace, len(before))
	}
	if n := len(after) - 1; n < 0 || after[n] != 900000 {
		t.Fatalf("%q: the next writer's line isn't the last: %d", strace, after)
	} else if n > 0 && after[n-1] != before[len(before)-1] {
		t.Errorf("%q: the last line was %d, and is %d under the next writer", strace, before[len(before)-1], after[n-1])
	}
	for _, all := range [][]int{before, after[:len(after)-1]} {
		for i := 1; i < len(all); i++ {
			if all[i] != all[i-1]+1 {
				t.Fatalf("%q: %d comes after %d", strace, all[i], all[i-1])
			}
		}
	}
	var total int64
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
	}
	if total > size*files || len(entries) > files {
		t.Errorf("%q: %d bytes in %d files", strace, total, len(entries))
	}
	return true
}

// numbers are those of the numbered lines in the files of a log, oldest first.
func numbers(t *testing.T, path string, files int) (all []int) {
	t.Helper()
	for i := files; i >= 0; i-- {
		b, err := os.ReadFile(logwriter.Rotated(path, i))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			n := 0
			if _, err := fmt.Sscanf(line[strings.Index(line, "line number "):], "line number %d", &n); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			all = append(all, n)
		}
	}
	return all
}
