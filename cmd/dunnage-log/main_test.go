package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dunnage/internal/testenv"
)

// logger is a dunnage-log process, driven as a shim does.
type logger struct {
	stdout, stderr *os.File
	cmd            *exec.Cmd
}

func start(t *testing.T, args ...string) *logger {
	t.Helper()
	l := &logger{cmd: exec.Command(testenv.Program(t, "./cmd/dunnage-log"), args...)}
	for _, end := range []**os.File{&l.stdout, &l.stderr} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		*end = w
		l.cmd.ExtraFiles = append(l.cmd.ExtraFiles, r)
	}
	ready, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	l.cmd.ExtraFiles = append(l.cmd.ExtraFiles, w)
	l.cmd.Stderr = os.Stderr
	if err := l.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.cmd.Process.Kill() }) // may have ended
	for _, f := range l.cmd.ExtraFiles {
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := io.ReadAll(ready); err != nil || len(b) != 1 {
		t.Fatalf("ready: %v %v", b, err)
	}
	return l
}

// end closes the streams and waits for the end of the process.
func (l *logger) end(t *testing.T) {
	t.Helper()
	for _, f := range []*os.File{l.stdout, l.stderr} {
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.cmd.Wait(); err != nil {
		t.Fatal(err)
	}
}

func TestSignalsAreIgnored(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l := start(t, "path", path, "size", "1000000", "files", "2")
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		if err := l.cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Fprintln(l.stdout, "out")
	fmt.Fprint(l.stderr, "err without end")
	l.end(t)
	b, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(b), " stdout F out\n") || !strings.Contains(string(b), " stderr F err without end\n") {
		t.Errorf("%q %v", b, err)
	}
}

func TestBadArguments(t *testing.T) {
	for _, args := range [][]string{{}, {"path"}, {"path", "/x", "size", "many"}, {"path", "/x", "colour", "red"}, {"path", "/x", "size", "0"}} {
		if _, err := parse(args); err == nil {
			t.Errorf("%q is accepted", args)
		}
	}
}

// TestFullDisk: the writer is never stopped, and what was lost is counted.
func TestFullDisk(t *testing.T) {
	testenv.Root(t)
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 48<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "log")
	l := start(t, "path", path, "size", "10000000", "files", "2")
	if err := l.stdout.SetWriteDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	const lines = 50_000 // 1 MB: more than disk and pipe hold
	w := bufio.NewWriter(l.stdout)
	for i := range lines {
		if _, err := fmt.Fprintf(w, "line number %06d\n", i); err != nil {
			t.Fatalf("the writer was stopped: %v", err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	awaitRead(t, l)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(l.stderr, "space again")
	l.end(t)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	whole, dropped := 0, 0
	for line := range strings.Lines(string(b)) {
		switch {
		case strings.Contains(line, " stdout F line number "):
			whole++
		case strings.Contains(line, "lines dropped"):
			n := 0
			if _, err := fmt.Sscanf(line[strings.Index(line, "dunnage: "):], "dunnage: %d lines", &n); err != nil {
				t.Fatal(err)
			}
			dropped += n
		}
	}
	if whole+dropped != lines || dropped == 0 || !strings.HasSuffix(string(b), " stderr F space again\n") {
		t.Errorf("%d written + %d dropped of %d", whole, dropped, lines)
	}
}

// awaitRead waits until the logger has taken everything out of the pipe.
func awaitRead(t *testing.T, l *logger) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if pending(t, l.stdout) == 0 {
			return
		}
	}
	t.Fatal("the logger stopped reading")
}

// pending is how many bytes wait in a pipe.
func pending(t *testing.T, f *os.File) int {
	t.Helper()
	raw, err := f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	if cerr := raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.TIOCINQ) }); cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
	return n
}
