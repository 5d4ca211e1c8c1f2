package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dunnage/engine/logwriter"
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
	var stdout, stderr *os.File
	stdout, l.stdout = pipe(t)
	stderr, l.stderr = pipe(t)
	l.cmd.Stderr = os.Stderr
	ready := launch(t, l.cmd, stdout, stderr)
	t.Cleanup(func() { _ = l.cmd.Process.Kill() }) // may have ended
	if b, err := io.ReadAll(ready); err != nil || len(b) != 1 {
		t.Fatalf("ready: %v %v", b, err)
	}
	return l
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	return r, w
}

// launch starts cmd with what it is to read, as the shim does, and returns the
// pipe on which it says that it is ready.
func launch(t *testing.T, cmd *exec.Cmd, stdout, stderr *os.File) (ready *os.File) {
	t.Helper()
	ready, started := pipe(t)
	cmd.ExtraFiles = []*os.File{stdout, stderr, started}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, f := range cmd.ExtraFiles {
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return ready
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

// TestYields: no thread of a writer has a service's weight, also when it works.
func TestYields(t *testing.T) {
	l := start(t, "path", filepath.Join(t.TempDir(), "log"), "size", "1000000", "files", "2")
	for range 1000 {
		fmt.Fprintln(l.stdout, strings.Repeat("x", 1000))
	}
	awaitRead(t, l)
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", l.cmd.Process.Pid))
	if err != nil || len(threads) == 0 {
		t.Fatalf("%v %v", threads, err)
	}
	for _, path := range threads {
		id, err := strconv.Atoi(filepath.Base(path))
		if err != nil {
			t.Fatal(err)
		}
		// The system call gives 20 minus the nice value, so that it is never negative.
		if n, err := unix.Getpriority(unix.PRIO_PROCESS, id); err != nil || 20-n != nice {
			t.Errorf("thread %d: nice %d, %v; want %d", id, 20-n, err, nice)
		}
	}
	l.end(t)
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
	dir := testenv.SmallDisk(t, "size=1m")
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 1<<20-16<<10), 0o600); err != nil {
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
	// The last lines of stdout are out of the pipe by now, and may still be on
	// their way: the order between streams isn't kept.
	log, whole, dropped := accounted(t, path)
	if again := strings.Count(log, " stderr F space again\n"); whole+dropped != lines || dropped == 0 || again != 1 {
		t.Errorf("%d written + %d dropped of %d; the line after it %d times, want once", whole, dropped, lines, again)
	}
}

// accounted reads a log and counts its numbered lines, and those that it says
// were dropped.
func accounted(t *testing.T, path string) (log string, whole, dropped int) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
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
	return string(b), whole, dropped
}

// TestFrozenDisk: while every write to the disk hangs in the kernel, the program
// goes on.
func TestFrozenDisk(t *testing.T) {
	testenv.Root(t)
	dir, disk := t.TempDir(), filepath.Join(t.TempDir(), "disk")
	sh := func(command string) {
		t.Helper()
		if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", command, err, out)
		}
	}
	sh("truncate -s 32M " + disk + " && mkfs.ext4 -q " + disk + " && mount -o loop " + disk + " " + dir)
	t.Cleanup(func() { sh("umount " + dir) })
	path := filepath.Join(dir, "log")
	l := start(t, "path", path, "size", "20000000", "files", "1")
	fmt.Fprintln(l.stdout, "line number 000000")
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if info, err := os.Stat(path); err == nil && info.Size() > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("nothing was written")
		}
	}
	sh("fsfreeze -f " + dir)
	thawed := false
	thaw := func() {
		if !thawed {
			thawed = true
			sh("fsfreeze -u " + dir)
		}
	}
	t.Cleanup(thaw)
	if err := l.stdout.SetWriteDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	const lines = 100_000
	w := bufio.NewWriter(l.stdout)
	for i := range lines - 1 {
		if _, err := fmt.Fprintf(w, "line number %06d\n", i+1); err != nil {
			t.Fatalf("the program was held up: %v", err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	thaw()
	l.end(t)
	if _, whole, dropped := accounted(t, path); whole+dropped != lines || dropped == 0 {
		t.Errorf("%d written + %d dropped of %d", whole, dropped, lines)
	}
}

// TestForwards: lines go to a syslog of this host too, named as the arguments
// say.
func TestForwards(t *testing.T) {
	dir := t.TempDir()
	socket, err := net.ListenPacket("unixgram", filepath.Join(dir, "syslog"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = socket.Close() })
	path := filepath.Join(dir, "shop-web-1.log")
	l := start(t, "facility", "16", "forward", "unix://"+filepath.Join(dir, "syslog"), "path", path, "size", "1000000", "files", "2",
		"tag", "shop", "project", "shop", "service", "web", "format", "", "gzip", "off")
	fmt.Fprintln(l.stderr, "what it says")
	b := make([]byte, 1<<16)
	if err := socket.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	n, _, err := socket.ReadFrom(b)
	if got := string(b[:n]); err != nil || !strings.HasPrefix(got, "<131>") || !strings.HasSuffix(got, " shop: what it says") {
		t.Errorf("%q %v", got, err)
	}
	l.end(t)
	if kept, err := os.ReadFile(path); err != nil || !strings.HasSuffix(string(kept), " stderr F what it says\n") {
		t.Errorf("%q %v", kept, err)
	}
}

// TestCompresses: what is rotated is compressed once the log is quiet, by a
// process of the lowest priority, and the log writer's end doesn't wait for it.
func TestCompresses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l := start(t, "path", path, "size", "1000000", "files", "3")
	line := strings.Repeat("what a program says, again and again ", 3) + "\n"
	for range 2_500_000 / len(line) {
		if _, err := io.WriteString(l.stdout, line); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		zipped, err := filepath.Glob(path + "*.gz")
		if err != nil || time.Now().After(deadline) {
			t.Fatal(zipped, err)
		}
		if _, err := os.Stat(path + ".1"); len(zipped) == 2 && os.IsNotExist(err) {
			break
		}
	}
	for _, f := range []string{path + ".1.gz", path + ".2.gz"} {
		out, err := exec.Command("zcat", f).Output()
		if err != nil || len(out) < 990_000 || strings.Count(string(out), line) != strings.Count(string(out), "\n") {
			t.Errorf("%s: %d bytes, %v", f, len(out), err)
		}
	}
	l.end(t)
}

// TestCompressionTakesTurns: one log of a host at a time.
func TestCompressionTakesTurns(t *testing.T) {
	turn, err := takeTurn()
	if err != nil {
		t.Fatal(err)
	}
	if f, err := takeTurn(); !errors.Is(err, logwriter.ErrBusy) {
		t.Errorf("%v %v", f, err)
	}
	if err := turn.Close(); err != nil {
		t.Fatal(err)
	}
	turn, err = takeTurn()
	if err != nil {
		t.Fatal(err)
	}
	if err := turn.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestMemory: 4 MB at most, whatever comes. A flood of empty lines is the worst:
// each byte becomes 46.
func TestMemory(t *testing.T) {
	for name, text := range map[string]string{
		"empty lines": "\n", "short lines": "line\n", "lines": strings.Repeat("x", 120) + "\n",
		"long lines": strings.Repeat("x", 1<<20) + "\n", "no end": "0123456789abcdef",
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "log")
			l := start(t, "path", path, "size", "1000000", "files", "3")
			idle := testenv.Resident(t, l.cmd.Process.Pid)
			most := testenv.PeakMemory(t, l.cmd.Process.Pid)
			block := strings.Repeat(text, max(1, (1<<20)/len(text)))
			for range 8 {
				if _, err := io.WriteString(l.stdout, block); err != nil {
					t.Fatal(err)
				}
			}
			awaitRead(t, l)
			peak := most()
			t.Logf("%d KiB at its start, %d at most", idle, peak)
			if peak > 4<<10 {
				t.Errorf("%d KiB", peak)
			}
			l.end(t)
		})
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
