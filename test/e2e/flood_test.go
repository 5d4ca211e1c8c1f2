package e2e

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"dunnage/internal/testenv"
)

// A replica floods its log while another one goes on as ever, and the agent is
// killed in the middle: the disk stays within its limit, and no line is lost or
// doubled but the oldest, which rotation is there for.
func TestLogFlood(t *testing.T) {
	h := newBareHost(t)
	h.start()
	h.loadApp()
	lines := rounds(500_000, 10_000_000) // of 100 bytes: 50 MB, 1 GB
	const bound = 3 << 20
	h.mustDeploy(`name: calm
services:
  neighbour:
    image: example.org/app:v1
    command: [tick, 5ms]
    stop_grace_period: 1s
`)
	h.mustDeploy(fmt.Sprintf(`name: app
services:
  flood:
    image: example.org/app:v1
    command: [flood, "%d"]
    stop_grace_period: 1s
    logging: {options: {max-size: 1m, max-file: "3"}}
`, lines), "--detach")
	logs := h.lab.Path("state", "logs", "app")
	stop, worst := make(chan struct{}), make(chan int64, 1)
	go func() {
		most := int64(0)
		for {
			select {
			case <-stop:
				worst <- most
				return
			case <-time.After(2 * time.Millisecond):
				most = max(most, sizeOf(filepath.Join(logs, "flood")))
			}
		}
	}()
	h.eventually(time.Minute, "a rotated log", func() error {
		if files, _ := filepath.Glob(filepath.Join(logs, "flood", "*.log.1")); len(files) == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	killAgent(h)
	before := floodLines(t, logs)
	if len(before) == 0 || before[len(before)-1] == lines-1 {
		t.Errorf("the flood was over when the agent died: %d lines", len(before))
	}
	memory := testenv.PeakMemory(t, h.logWriter("flood"))
	h.start()
	h.eventually(5*time.Minute, "the end of the flood", func() error {
		if got := floodLines(t, logs); len(got) == 0 || got[len(got)-1] != lines-1 {
			return fmt.Errorf("%d lines", len(got))
		}
		return nil
	})
	close(stop)
	most := <-worst
	row(t, fmt.Sprintf("most on disk in a flood of %d MB", lines/10_000), "<= 3145728 bytes", fmt.Sprint(most), most > 0 && most <= bound)
	got := floodLines(t, logs)
	for i, n := range got {
		if n != lines-len(got)+i {
			t.Fatalf("line %d is number %d, want %d", i, n, lines-len(got)+i)
		}
	}
	if least := bound / 146 * 6 / 10; len(got) < min(lines, least) { // of 146 bytes each
		t.Errorf("only %d lines are left, want %d", len(got), least)
	}
	peak := memory()
	row(t, "log writer's memory in the flood", "<= 4096 KiB", fmt.Sprintf("%d KiB", peak), peak > 0 && peak <= 4<<10)
	ticks := strings.Fields(strings.ReplaceAll(readLog(t, h.lab.Path("state", "logs", "calm", "neighbour")), "tick ", ""))
	for i, n := range ticks {
		if n != fmt.Sprint(i) {
			t.Fatalf("the neighbour's line %d says %s", i, n)
		}
	}
	row(t, "neighbour's lines lost in the flood", "0", fmt.Sprintf("0 of %d", len(ticks)), len(ticks) > 0)
	for _, r := range h.ready(2) {
		if r.Restarts != 0 {
			t.Errorf("%s was restarted %d times", r.Replica, r.Restarts)
		}
	}
}

// sizeOf is what the files of a folder hold; one that is renamed meanwhile
// counts once.
func sizeOf(dir string) (n int64) {
	seen := map[uint64]bool{}
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return nil
		}
		info, err := e.Info()
		if err != nil { // gone
			return nil
		}
		if ino := info.Sys().(*syscall.Stat_t).Ino; !seen[ino] {
			seen[ino] = true
			n += info.Size()
		}
		return nil
	})
	return n
}

// readLog is the text of all whole lines in a folder with one replica's log,
// the oldest first. It reads the files itself: no dunnage is between.
func readLog(t *testing.T, dir string) string {
	t.Helper()
	for range 100 {
		if text, ok := tryReadLog(t, dir); ok {
			return text
		}
	}
	t.Fatalf("the log in %s is rotated faster than it can be read", dir)
	return ""
}

// tryReadLog isn't ok if the log was rotated meanwhile.
func tryReadLog(t *testing.T, dir string) (string, bool) {
	t.Helper()
	list := func() []string {
		files, err := filepath.Glob(filepath.Join(dir, "*.log*"))
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(files) // .log, .log.1, .log.2: the newest first
		slices.Reverse(files)
		return slices.DeleteFunc(files, func(f string) bool { return strings.HasSuffix(f, ".tmp") })
	}
	files := list()
	var held []*os.File
	defer func() {
		for _, f := range held {
			_ = f.Close()
		}
	}()
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return "", false
		}
		held = append(held, f)
	}
	for i, f := range held {
		now, err := os.Stat(files[i])
		was, ferr := f.Stat()
		if err != nil || ferr != nil || !os.SameFile(now, was) {
			return "", false
		}
	}
	if !slices.Equal(files, list()) {
		return "", false
	}
	var text strings.Builder
	for i, f := range held {
		var r io.Reader = f
		if strings.HasSuffix(files[i], ".gz") {
			z, err := gzip.NewReader(f)
			if err != nil {
				t.Fatal(err)
			}
			r = z
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if _, rest, ok := strings.Cut(line, " F "); ok && strings.HasSuffix(rest, "\n") {
				text.WriteString(rest)
			} else if i < len(held)-1 {
				t.Fatalf("%s: %q", files[i], line)
			}
		}
	}
	return text.String(), true
}

// floodLines are the numbers of the flood's lines.
func floodLines(t *testing.T, logs string) (numbers []int) {
	t.Helper()
	for line := range strings.Lines(readLog(t, filepath.Join(logs, "flood"))) {
		n := 0
		if _, err := fmt.Sscanf(line, "flood %d ", &n); err != nil {
			t.Fatalf("%q", line)
		}
		numbers = append(numbers, n)
	}
	return numbers
}

// logWriter is the process that writes a service's log.
func (h *host) logWriter(service string) (pid int) {
	h.t.Helper()
	return h.findProcess(func(argv []string) bool {
		return strings.HasSuffix(argv[0], "dunnage-log") && slices.ContainsFunc(argv, func(a string) bool {
			return strings.HasPrefix(a, h.lab.Path("state", "logs", "app", service))
		})
	})
}
