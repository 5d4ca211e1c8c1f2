package logwriter

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"dunnage/internal/testenv"
)

// say appends one line.
func say(w *Writer, text string) {
	w.Append([]Line{{At: time.Now(), Stream: Stdout, Text: []byte(text)}})
}

// onDisk is what the files of a log hold together, a compression included.
func onDisk(t *testing.T, path string) (n int64) {
	t.Helper()
	files, err := filepath.Glob(path + "*")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if info, err := os.Stat(f); err == nil { // it may be renamed or gone by now
			n += info.Size()
		}
	}
	return n
}

// texts are the lines of a log's files, the oldest first, partial ones joined;
// either form of a file counts once.
func texts(t *testing.T, path string) (out []string) {
	t.Helper()
	files, err := ListOlder(path)
	if err != nil {
		t.Fatal(err)
	}
	numbers := []int{0}
	for n, f := range files {
		if f.size() > 0 { // else a directory
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	slices.Reverse(numbers)
	part := ""
	for _, n := range numbers {
		b, err := os.ReadFile(Rotated(path, n))
		if n > 0 && errors.Is(err, os.ErrNotExist) {
			f, oerr := os.Open(Compressed(path, n))
			if oerr != nil {
				t.Fatal(oerr)
			}
			b, err = []byte(unzip(t, f)), f.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		for entry := range strings.Lines(string(b)) {
			l, ok := ParseLine([]byte(strings.TrimSuffix(entry, "\n")))
			if !ok {
				t.Fatalf("file %d: %q", n, entry)
			}
			if part += string(l.Text); !l.Partial {
				out = append(out, part)
				part = ""
			}
		}
	}
	return out
}

// inProcess is a Compression that tests can hold up.
type inProcess struct {
	done chan error
	kill chan struct{}
	once sync.Once
}

func (p *inProcess) Wait() error { return <-p.done }
func (p *inProcess) Kill()       { p.once.Do(func() { close(p.kill) }) }

// compressHere compresses as soon as it gets a go.
func compressHere(goOn <-chan struct{}) Compressor {
	return func(to, from *os.File, room int64) (Compression, error) {
		p := &inProcess{done: make(chan error, 1), kill: make(chan struct{})}
		go func() {
			select {
			case <-goOn:
				err := Compress(to, from)
				if at, serr := to.Seek(0, io.SeekCurrent); serr == nil && at > room && err == nil {
					err = errors.New("no room") // RLIMIT_FSIZE would have said so earlier
				}
				p.done <- err
			case <-p.kill:
				p.done <- errors.New("killed")
			}
		}()
		return p, nil
	}
}

// TestCompressOlder compresses while the log rotates on, in all orders: no line
// is lost or doubled within what is kept, and the bound holds.
func TestCompressOlder(t *testing.T) {
	for _, keep := range []int{2, 3, 5} {
		path := filepath.Join(t.TempDir(), "log")
		const limit = 20_000
		w := NewWriter(path, limit, keep)
		goOn := make(chan struct{})
		n := 0
		write := func(bytes int) {
			for end := n + bytes/60; n < end; n++ {
				say(w, fmt.Sprintf("line %09d", n))
				if n%50 == 0 && onDisk(t, path) > limit*int64(keep) {
					t.Fatalf("keep %d: %d bytes on disk", keep, onDisk(t, path))
				}
			}
		}
		check := func(what string) {
			t.Helper()
			got := texts(t, path)
			for i, text := range got {
				if want := fmt.Sprintf("line %09d", n-len(got)+i); text != want {
					t.Fatalf("keep %d, %s: line %d of %d is %q, want %q", keep, what, i, len(got), text, want)
				}
			}
			if least := limit / 60 * (keep - 1) * 9 / 10; len(got) < min(least, n) {
				t.Errorf("keep %d, %s: %d lines are left, want %d at least", keep, what, len(got), least)
			}
		}
		compressed := 0
		for round := range 30 {
			write(limit * (round%4 + 1) / 2)
			j, from, err := w.begin(compressHere(goOn))
			if err != nil {
				t.Fatal(err)
			}
			if j == nil {
				continue
			}
			write(limit * (round % 3) / 2) // meanwhile: it moves on, or is dropped
			select {
			case goOn <- struct{}{}:
			case <-j.process.(*inProcess).kill:
			}
			if w.finish(j, from, j.process.Wait()) == nil {
				compressed++
			}
			if err := errors.Join(from.Close(), j.to.Close()); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(temporary(path)); err == nil {
				t.Fatal("the temporary file stays")
			}
			check(fmt.Sprintf("round %d", round))
		}
		if compressed < 5 {
			t.Errorf("keep %d: only %d compressions came to their end", keep, compressed)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCompressionInBackground runs it as the program does.
func TestCompressionInBackground(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	goOn := make(chan struct{})
	close(goOn)
	r, stdout := io.Pipe()
	w := NewWriter(path, 50_000, 4)
	done := make(chan error, 1)
	go func() {
		done <- Run(w, map[string]io.Reader{Stdout: r}, Options{Compress: compressHere(goOn)})
	}()
	for i := range 3100 {
		if _, err := fmt.Fprintf(stdout, "line %d\n", i); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		zipped, _ := filepath.Glob(path + ".*.gz")
		plain, _ := filepath.Glob(path + ".[0-9]")
		if len(zipped) == 3 && len(plain) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v %v", zipped, plain)
		}
	}
	if err := errors.Join(stdout.Close(), <-done, w.Close()); err != nil {
		t.Fatal(err)
	}
	if got := texts(t, path); len(got) != 3100 || got[len(got)-1] != "line 3099" {
		t.Errorf("%d lines, the last is %q", len(got), got[len(got)-1])
	}
}

// TestAfterACrash begins with what one leaves at each step of a rotation and of
// a compression.
func TestAfterACrash(t *testing.T) {
	text := func(from, to int) (s string) {
		for ; from < to; from++ {
			s += string(AppendLine(nil, Line{Stream: Stdout, Text: fmt.Append(nil, from)}))
		}
		return s
	}
	zipped := func(s string) string {
		f, size := compressed(t, s)
		b, err := io.ReadAll(io.NewSectionReader(f, 0, size))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for name, files := range map[string]map[string]string{
		"cut in a compression":    {".2": text(0, 10), ".1": text(10, 20), "": text(20, 30), ".gz.tmp": zipped(text(0, 10))[:30]},
		"both forms":              {".2.gz": zipped(text(0, 10)), ".2": text(0, 10), ".1": text(10, 20), "": text(20, 30)},
		"a number without a file": {".3.gz": zipped(text(0, 10)), ".2": text(10, 20), "": text(20, 30)},
		"no present file":         {".2.gz": zipped(text(0, 20)), ".1": text(20, 30)},
		"more files than now":     {".9": "2026-11-22T02:10:38Z stdout F old\n", ".4.gz": zipped(text(3, 7)), ".2": text(0, 10), ".1.gz": zipped(text(10, 20)), "": text(20, 30)},
		"half a line":             {"": text(0, 30) + "2026-11-22T02:10:38Z stdout F 30"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "log")
			for suffix, content := range files {
				if err := os.WriteFile(path+suffix, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			w := NewWriter(path, 100_000, 4)
			next := 30
			if name == "half a line" {
				next++
			}
			for i := next; i < 40; i++ {
				say(w, fmt.Sprint(i))
			}
			if err := w.rotate(); err != nil {
				t.Fatal(err)
			}
			for i := range 10 {
				say(w, fmt.Sprint(40+i))
			}
			for i, got := range texts(t, path) {
				if got != fmt.Sprint(i) {
					t.Fatalf("line %d is %q: %q", i, got, texts(t, path))
				}
			}
			if n := len(texts(t, path)); n != 50 {
				t.Errorf("%d lines", n)
			}
			files, err := ListOlder(path)
			if err != nil || len(files) > 3 {
				t.Errorf("%v %v", files, err)
			}
			for _, f := range files {
				if f.Plain > 0 && f.Zip > 0 {
					t.Errorf("both forms of %d stay", f.Number)
				}
			}
			if _, err := os.Stat(temporary(path)); err == nil {
				t.Error("a temporary file stays")
			}
		})
	}
}

// TestSmallBounds: one file, files smaller than a line, limits that shrank.
func TestSmallBounds(t *testing.T) {
	for _, c := range []struct {
		limit int64
		keep  int
	}{{1, 1}, {1, 2}, {1000, 0}, {5000, 1}, {5000, 3}, {100_000, 1}} {
		path := filepath.Join(t.TempDir(), "log")
		if err := os.WriteFile(path+".1", make([]byte, 1<<20), 0o600); err != nil { // as large files were before
			t.Fatal(err)
		}
		bound := max(c.limit, smallestFile) * int64(max(c.keep, 1))
		w := NewWriter(path, c.limit, c.keep)
		last := ""
		for i := range 300 {
			last = fmt.Sprint(i, " ", strings.Repeat("x", i*200%50_000))
			if err := Copy(w, Stdout, strings.NewReader(last+"\n")); err != nil {
				t.Fatal(err)
			}
			if n := onDisk(t, path); n > bound {
				t.Fatalf("%+v: %d bytes on disk", c, n)
			}
		}
		got := texts(t, path)
		if len(got) == 0 || !strings.HasSuffix(last, got[len(got)-1]) {
			t.Errorf("%+v: %d lines, the last has %d bytes, want the end of %d", c, len(got), len(got[len(got)-1]), len(last))
		}
	}
}

// TestOthersTouchTheFiles: what is removed, renamed or emptied comes back, in
// the same place, and no line is written where no reader finds it.
func TestOthersTouchTheFiles(t *testing.T) {
	remove := func(path string) error { return os.RemoveAll(path) }
	for name, do := range map[string]func(path string) error{
		"removed":                remove,
		"renamed":                func(path string) error { return os.Rename(path, path+".mine") },
		"emptied":                func(path string) error { return os.Truncate(path, 0) },
		"its directory removed":  func(path string) error { return remove(filepath.Dir(path)) },
		"its project's removed":  func(path string) error { return remove(filepath.Dir(filepath.Dir(path))) },
		"replaced":               func(path string) error { return errors.Join(os.Remove(path), os.WriteFile(path, nil, 0o600)) },
		"older ones removed":     func(path string) error { return errors.Join(os.Remove(path+".1"), remove(path)) },
		"a directory in the way": func(path string) error { return errors.Join(os.MkdirAll(path+".2/x", 0o700), remove(path)) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "project", "service", "log")
			w := NewWriter(path, smallestFile, 3)
			for i := range 100 {
				say(w, fmt.Sprint("before ", i))
			}
			if err := do(path); err != nil {
				t.Fatal(err)
			}
			for i := range 10 {
				say(w, fmt.Sprint("after ", i))
			}
			b, err := os.ReadFile(path)
			if err != nil || strings.Count(string(b), " F after ") != 10 {
				t.Fatalf("%q %v", b, err)
			}
			for i := range 1000 { // rotation works still, or the file is emptied
				say(w, fmt.Sprint("much later ", i))
			}
			b, err = os.ReadFile(path)
			if err != nil || len(b) > smallestFile || !strings.HasSuffix(string(b), " F much later 999\n") {
				t.Errorf("%d bytes: %v", len(b), err)
			}
		})
	}
}

// TestDirectoriesAmongOlder: what can't be removed costs no line, in whatever form
// of whichever number it stands.
func TestDirectoriesAmongOlder(t *testing.T) {
	for _, c := range []struct {
		keep int
		dirs []string
	}{
		{2, []string{".1"}}, {2, []string{".1.gz"}}, {2, []string{".1", ".2.gz"}},
		{3, []string{".1"}}, {3, []string{".2"}}, {3, []string{".1.gz"}}, {3, []string{".2.gz"}}, {3, []string{".1", ".1.gz", ".2.gz"}},
		{5, []string{".2", ".4.gz"}},
	} {
		for _, late := range []bool{false, true} {
			t.Run(fmt.Sprint(c.keep, c.dirs, late), func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "log")
				put := func() {
					for _, d := range c.dirs {
						if err := os.MkdirAll(path+d+"/x", 0o700); err != nil && !errors.Is(err, syscall.ENOTDIR) { // its name is taken
							t.Fatal(err)
						}
					}
				}
				if !late {
					put()
				}
				w := NewWriter(path, smallestFile, c.keep)
				goOn := make(chan struct{})
				close(goOn)
				for i := range 3000 {
					say(w, fmt.Sprint("line ", i))
					if late && i == 1000 {
						put()
					}
					if i%500 == 499 && onDisk(t, path) > int64(c.keep)*smallestFile+int64(len(c.dirs))*smallestFile { // a directory has a size too
						t.Fatalf("%d bytes", onDisk(t, path))
					}
				}
				got := texts(t, path)
				if least := smallestFile / 60 * (c.keep - 1); len(got) < least {
					t.Errorf("%d lines are left, want %d at least", len(got), least)
				}
				for i, text := range got {
					if want := fmt.Sprint("line ", 3000-len(got)+i); text != want {
						t.Fatalf("line %d is %q, want %q", i, text, want)
					}
				}
				w.prune() // as the next writer does
				if after := texts(t, path); len(after) != len(got) {
					t.Errorf("of %d lines, %d are left", len(got), len(after))
				}
				strangers, err := Strangers(path)
				if err != nil || !late && len(strangers) != len(c.dirs) {
					t.Errorf("%v, %v", strangers, err)
				}
			})
		}
	}
}

// TestNothingCanBeRotated: then the file's limit holds all the same, and its first
// line says what is wrong.
func TestNothingCanBeRotated(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	for n := range 2 * mostStuck {
		if err := os.MkdirAll(Rotated(path, n+1)+"/x", 0o700); err != nil {
			t.Fatal(err)
		}
	}
	w := NewWriter(path, smallestFile, 3)
	for i := range 1000 {
		say(w, fmt.Sprint("line ", i))
	}
	b, err := os.ReadFile(path)
	if err != nil || len(b) > smallestFile || !strings.HasSuffix(string(b), " F line 999\n") {
		t.Errorf("%d bytes: %v", len(b), err)
	}
	first, _, _ := strings.Cut(string(b), "\n")
	l, _ := ParseLine([]byte(first))
	if why, ok := ParseEmptied(l.Text); !ok || !strings.Contains(why, path+".") {
		t.Errorf("nothing is told: %q", first)
	}
}

// strangers are things that are no regular files.
var strangers = map[string]func(path string) error{
	"a FIFO":            func(path string) error { return syscall.Mkfifo(path, 0o600) },
	"a directory":       func(path string) error { return os.Mkdir(path, 0o700) },
	"a device":          func(path string) error { return os.Symlink("/dev/full", path) },
	"a link to nowhere": func(path string) error { return os.Symlink(path+".missing/x", path) },
	"a socket":          func(path string) error { return syscall.Mknod(path, syscall.S_IFSOCK|0o600, 0) },
	"a link to a file": func(path string) error {
		return errors.Join(os.WriteFile(filepath.Join(filepath.Dir(path), "elsewhere"), []byte("its own\n"), 0o600), os.Symlink("elsewhere", path))
	},
	"a link that is round": func(path string) error { return os.Symlink(filepath.Base(path), path) },
}

// inTime fails the test where f hangs, as opening a FIFO does.
func inTime(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan bool)
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatalf("%s hangs", what)
	}
}

// TestStrangerInTheWay: what somebody has put in the file's place is left alone,
// and lines are counted until it is gone.
func TestStrangerInTheWay(t *testing.T) {
	for name, put := range strangers {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "log")
			now := time.Now()
			if err := put(path); err != nil {
				t.Fatal(err)
			}
			was, err := os.Lstat(path)
			if err != nil {
				t.Fatal(err)
			}
			inTime(t, "the writer", func() {
				w := NewWriter(path, 1<<20, 3)
				w.now = func() time.Time { return now }
				say(w, "1")
				now = now.Add(2 * retryOpen)
				say(w, "2")
				is, err := os.Lstat(path)
				if err != nil || !os.SameFile(was, is) {
					t.Errorf("it is another now: %v %v", is, err)
				}
				if b, err := os.ReadFile(filepath.Join(filepath.Dir(path), "elsewhere")); err == nil && string(b) != "its own\n" {
					t.Errorf("the link's file has %q", b)
				}
				if err := os.Remove(path); err != nil {
					t.Error(err)
				}
				now = now.Add(2 * retryOpen)
				say(w, "3")
				got := texts(t, path)
				if len(got) != 2 || !strings.Contains(got[0], "2 lines dropped: the log could not be written: ") || got[1] != "3" {
					t.Errorf("%q", got)
				}
				t.Log(got[0])
			})
		})
	}
}

// TestStrangersAmongOlder: rotation and compression wait for nothing that has the
// name of an older file or of a compression.
func TestStrangersAmongOlder(t *testing.T) {
	for name, put := range strangers {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "log")
			for _, p := range []string{Rotated(path, 1), Compressed(path, 2), temporary(path)} {
				if err := put(p); err != nil {
					t.Fatal(err)
				}
			}
			goOn := make(chan struct{})
			close(goOn)
			inTime(t, "the writer", func() {
				w := NewWriter(path, smallestFile, 4)
				if err := put(temporary(path)); err != nil { // NewWriter has removed the other
					t.Error(err)
				}
				for i := range 1000 {
					say(w, fmt.Sprint("line ", i))
				}
				for range 4 {
					if _, err := w.compressNext(nil, compressHere(goOn)); err != nil {
						t.Error(err)
					}
				}
				if got := texts(t, path); len(got) < 100 || got[len(got)-1] != "line 999" {
					t.Errorf("%d lines: %q", len(got), got)
				}
				if n := onDisk(t, path); n > 4*smallestFile {
					t.Errorf("%d bytes", n)
				}
			})
		})
	}
}

// TestDiskHangs writes to a named pipe that nobody reads: writes hang as they do
// on a dead disk. The program isn't held up, and afterwards every line is either
// there or counted, in order.
func TestDiskHangs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	disk, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = disk.Close() })
	r, stdout, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	w := NewWriter(path, 1<<30, 2)
	if w.file, err = os.OpenFile(path, os.O_WRONLY, 0); err != nil { // it opens none itself
		t.Fatal(err)
	}
	go func() { done <- Run(w, map[string]io.Reader{Stdout: r}, Options{}) }()
	if err := stdout.SetWriteDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	const lines = 100_000 // 1.4 MB, 6 MB as entries
	for i := range lines {
		if _, err := fmt.Fprintf(stdout, "line %08d\n", i); err != nil {
			t.Fatalf("the program was held up at line %d: %v", i, err)
		}
	}
	if err := stdout.Close(); err != nil {
		t.Fatal(err)
	}
	read := make(chan string)
	go func() { // the disk is back
		b, _ := io.ReadAll(disk)
		read <- string(b)
	}()
	if err := errors.Join(<-done, w.Close()); err != nil {
		t.Fatal(err)
	}
	if err := disk.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	next := 0
	for entry := range strings.Lines(<-read) {
		l, ok := ParseLine([]byte(strings.TrimSuffix(entry, "\n")))
		n := 0
		if !ok {
			t.Fatalf("%q", entry)
		}
		if _, err := fmt.Sscanf(string(l.Text), "dunnage: %d lines dropped: the log could not be written: the disk", &n); err == nil {
			next += n
			continue
		}
		if want := fmt.Sprintf("line %08d", next); string(l.Text) != want {
			t.Fatalf("%q, want %q", l.Text, want)
		}
		next++
	}
	if next != lines {
		t.Errorf("%d lines written or counted, want %d", next, lines)
	}
}

// The CRI parsers of the shippers, as they are published:
//
//	Fluent Bit   conf/parsers.conf, parser "cri", Time_Format %Y-%m-%dT%H:%M:%S.%L%z
//	Promtail     clients/pkg/logentry/stages/extensions.go, NewCRI
//	Fluentd      fluent-plugin-parser-cri
var criParsers = map[string]*regexp.Regexp{
	"Fluent Bit": regexp.MustCompile(`^(?P<time>[^ ]+) (?P<stream>stdout|stderr) (?P<flags>[^ ]*) (?P<content>.*)$`),
	"Promtail":   regexp.MustCompile(`^(?s)(?P<time>\S+?) (?P<stream>stdout|stderr) (?P<flags>\S+?) (?P<content>.*)$`),
	"Fluentd":    regexp.MustCompile(`^(?P<time>[^\s]+) (?P<stream>stdout|stderr) (?P<flags>[FP]) (?P<content>.*)$`),
}

// TestGrammarOfShippers reads what the writer wrote with the grammar of those
// who read it, and joins partial lines by stream, as they do.
func TestGrammarOfShippers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	long := strings.Repeat("0123456789abcdef", 1<<16) // 1 MiB
	want := map[string][]string{
		Stdout: {"plain", "", " leading", "trailing ", "stdout F", "\ttab", "ümläut ✓", "\x1b[31mred\x1b[0m", "carriage\r", "\x00\x01\xff\xfe", long, "after", "{\"json\": true}", "without end"},
		Stderr: {strings.Repeat("y", MaxText), strings.Repeat("z", MaxText+1), "err"},
	}
	streams := map[string]io.Reader{}
	for name, lines := range want {
		streams[name] = strings.NewReader(strings.Join(lines, "\n"))
	}
	w := NewWriter(path, 100<<20, 1)
	if err := errors.Join(Run(w, streams, Options{}), w.Close()); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for shipper, grammar := range criParsers {
		got, part := map[string][]string{}, map[string]string{}
		for entry := range strings.Lines(string(b)) {
			m := grammar.FindStringSubmatch(strings.TrimSuffix(entry, "\n"))
			if m == nil {
				t.Fatalf("%s: %q", shipper, entry)
			}
			if _, err := time.Parse("2006-01-02T15:04:05.000000000Z0700", m[1]); err != nil {
				t.Fatalf("%s: %v", shipper, err)
			}
			part[m[2]] += m[4]
			if m[3] == "F" {
				got[m[2]] = append(got[m[2]], part[m[2]])
				part[m[2]] = ""
			} else if m[3] != "P" || len(m[4]) != MaxText {
				t.Fatalf("%s: flag %q of %d bytes", shipper, m[3], len(m[4]))
			}
		}
		for name := range want {
			if !slices.Equal(got[name], want[name]) {
				t.Errorf("%s: %s: %d lines, want %d", shipper, name, len(got[name]), len(want[name]))
			}
		}
	}
}

// TestMemoryOfAFlood: the worst is a flood of empty lines, of which each byte
// becomes 45. What is held is a handful of batches, whatever comes.
func TestMemoryOfAFlood(t *testing.T) {
	w := NewWriter(filepath.Join(t.TempDir(), "log"), 1<<20, 2)
	flood := strings.Repeat("\n", 1<<20)
	n := testing.AllocsPerRun(1, func() {
		if err := Copy(w, Stdout, strings.NewReader(flood)); err != nil {
			t.Fatal(err)
		}
	})
	// Rotations allocate, lines don't.
	if n > 10_000 {
		t.Errorf("%v allocations for %d lines", n, len(flood))
	}
}

// TestManyStamps: entries of any time have the same width.
func TestManyStamps(t *testing.T) {
	for _, at := range []time.Time{time.Unix(0, 0), time.Unix(1_800_000_000, 100), time.Now()} {
		if b := appendHead(nil, at, Stdout); len(b) != len("2026-11-22T02:10:38.123456789Z stdout") || len(b)+len(" F \n") > entryRoom {
			t.Errorf("%q", b)
		}
	}
}

// TestBrokenDirectory: lines that can't be written are counted and told of.
func TestBrokenDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "missing")
	path := filepath.Join(dir, "project", "service", "log")
	w := NewWriter(path, 1000, 2)
	now := time.Now()
	w.now = func() time.Time { return now }
	w.Append([]Line{{Stream: Stdout, Text: []byte("1")}, {Stream: Stdout, Text: []byte("2")}})
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	now = now.Add(2 * retryOpen)
	w.Append([]Line{{At: now, Stream: Stdout, Text: []byte("3")}})
	got := texts(t, path)
	if len(got) != 2 || !strings.Contains(got[0], "2 lines dropped") || got[1] != "3" {
		t.Errorf("%q", got)
	}
}

// TestNoInodes: a log that has no next file for want of an inode says that it is
// this, and not space.
func TestNoInodes(t *testing.T) {
	dir := testenv.SmallDisk(t, "size=1m,nr_inodes=4")
	path := filepath.Join(dir, "log")
	w := NewWriter(path, smallestFile, 2)
	now := time.Now()
	w.now = func() time.Time { return now }
	var others []string
	for i := 0; ; i++ {
		other := filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(other, nil, 0o600); err != nil {
			break
		}
		others = append(others, other)
	}
	long := strings.Repeat("x", smallestFile/2)
	for range 3 { // the second begins another file
		say(w, long)
	}
	for _, other := range others {
		if err := os.Remove(other); err != nil {
			t.Fatal(err)
		}
	}
	now = now.Add(2 * retryOpen)
	say(w, "again")
	want := "dunnage: 2 lines dropped: the log could not be written: open " + path + ": no space left on device: none of the 4 inodes of its file system is free: it has too many files, not too much data"
	if got := texts(t, path); !slices.Equal(got, []string{long, want, "again"}) {
		t.Errorf("%q", got)
	}
}
