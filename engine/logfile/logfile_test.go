package logfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"dunnage/spec"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func paths(sources ...Source) func() []Source { return func() []Source { return sources } }

// collect reads everything that is there, with parts joined to lines.
func collect(t *testing.T, tail int, sources ...Source) []string {
	t.Helper()
	var out []string
	part := ""
	err := Read(t.Context(), paths(sources...), Query{Tail: tail}, func(l spec.LogLine) error {
		part += string(l.Text)
		if !l.Partial {
			out = append(out, part)
			part = ""
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestRoundTrip(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", 1<<16) // 1 MiB
	for name, lines := range map[string][]string{
		"plain":          {"one", "two", "", "four"},
		"binary":         {"\x00\xff\r\x1b[31m", " leading", "trailing ", "F P F"},
		"long":           {"short", long, "after"},
		"exactly a part": {strings.Repeat("x", MaxText), strings.Repeat("y", MaxText-1), strings.Repeat("z", MaxText+1)},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "log")
			w := NewWriter(path, 10<<20, 3)
			if err := Copy(w, Stdout, strings.NewReader(strings.Join(lines, "\n")+"\n")); err != nil {
				t.Fatal(err)
			}
			if got := collect(t, -1, Source{Path: path}); !slices.Equal(got, lines) {
				t.Errorf("got %d lines, want %d", len(got), len(lines))
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestLastLineWithoutEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := Copy(NewWriter(path, 1<<20, 1), Stderr, strings.NewReader("one\ntwo")); err != nil {
		t.Fatal(err)
	}
	if got := collect(t, -1, Source{Path: path}); !slices.Equal(got, []string{"one", "two"}) {
		t.Error(got)
	}
}

// TestTail compares the backwards search with the plain end of the list, over
// files of all shapes.
func TestTail(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 8 {
		path := filepath.Join(t.TempDir(), "log")
		w := NewWriter(path, int64(1000+random.IntN(200_000)), 1000)
		var all []string
		for i := range random.IntN(400) {
			text := fmt.Sprintf("%d %s", i, strings.Repeat("x", random.IntN(3000)))
			if random.IntN(20) == 0 {
				text += strings.Repeat("y", random.IntN(100_000))
			}
			all = append(all, text)
		}
		if len(all) == 0 {
			continue
		}
		if err := Copy(w, Stdout, strings.NewReader(strings.Join(all, "\n")+"\n")); err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{0, 1, 2, 10, len(all) - 1, len(all), len(all) + 5} {
			got := collect(t, n, Source{Path: path})
			if want := all[max(0, len(all)-n):]; !slices.Equal(got, want) {
				t.Fatalf("round %d of %d lines: tail %d gave %d lines", round, len(all), n, len(got))
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRotationBoundsDisk(t *testing.T) {
	dir := t.TempDir()
	w := NewWriter(filepath.Join(dir, "log"), 10_000, 3)
	for i := range 5000 {
		w.Append([]Line{{At: time.Now(), Stream: Stdout, Text: fmt.Appendf(nil, "line %d", i)}})
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 3 {
		t.Fatalf("%d files, %v", len(entries), err)
	}
	total := int64(0)
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
	}
	if total > 30_000 {
		t.Errorf("%d bytes on disk", total)
	}
	if got := collect(t, -1, Source{Path: filepath.Join(dir, "log")}); got[len(got)-1] != "line 4999" || len(got) < 200 {
		t.Errorf("%d lines, last %q", len(got), got[len(got)-1])
	}
}

func TestMergeByTime(t *testing.T) {
	dir := t.TempDir()
	var sources []Source
	base := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	for replica := range 3 {
		s := Source{Replica: fmt.Sprint(replica), Path: filepath.Join(dir, fmt.Sprint(replica))}
		w := NewWriter(s.Path, 500, 100)
		for i := range 50 {
			n := i*3 + replica
			w.Append([]Line{{At: base.Add(time.Duration(n) * time.Millisecond), Stream: Stdout, Text: fmt.Append(nil, n)}})
		}
		sources = append(sources, s)
	}
	got := collect(t, -1, sources...)
	for i, text := range got {
		if text != fmt.Sprint(i) {
			t.Fatalf("line %d is %s", i, text)
		}
	}
	if len(got) != 150 {
		t.Errorf("%d lines", len(got))
	}
}

// TestFollow writes while a reader follows: rotations faster than the reader
// looks, a second writer on the same file, a replica that comes later.
func TestFollow(t *testing.T) {
	dir := t.TempDir()
	first, second := Source{Replica: "a", Path: filepath.Join(dir, "a")}, Source{Replica: "b", Path: filepath.Join(dir, "b")}
	w := NewWriter(first.Path, 300, 1000)
	say := func(w *Writer, text string) { w.Append([]Line{{At: time.Now(), Stream: Stdout, Text: []byte(text)}}) }
	say(w, "before")

	lines := make(chan string, 1000)
	looked := make(chan struct{}, 1000) // each time the reader asks what there is
	sources := func() []Source {
		looked <- struct{}{}
		return []Source{first, second}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	done := make(chan error, 1)
	go func() {
		done <- Read(ctx, sources, Query{Follow: true}, func(l spec.LogLine) error {
			lines <- l.Replica + string(l.Text)
			return nil
		})
	}()
	expect := func(want string) {
		t.Helper()
		select {
		case got := <-lines:
			if got != want {
				t.Fatalf("got %q, want %q", got, want)
			}
		case <-ctx.Done():
			t.Fatalf("no %q", want)
		}
	}
	<-looked
	<-looked // the second time: it stands behind "before"
	say(NewWriter(second.Path, 1000, 2), "first")
	expect("bfirst")
	for i := range 100 { // some 20 rotations
		say(w, fmt.Sprint(i))
	}
	for i := range 100 {
		expect("a" + fmt.Sprint(i))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	say(NewWriter(first.Path, 300, 1000), "restarted")
	expect("arestarted")
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestSendErrorEndsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	NewWriter(path, 1000, 2).Append([]Line{{At: time.Now(), Stream: Stdout, Text: []byte("x")}})
	gone := errors.New("gone")
	err := Read(t.Context(), paths(Source{Path: path}), Query{Tail: -1, Follow: true}, func(spec.LogLine) error { return gone })
	if !errors.Is(err, gone) {
		t.Error(err)
	}
}

// TestDamage: a line that a killed writer cut in half is shown as it is, and
// the next one is whole.
func TestDamage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte("2026-11-22T02:10:38Z stdout F good\n2026-11-22T02:1"), 0o600); err != nil {
		t.Fatal(err)
	}
	NewWriter(path, 1000, 2).Append([]Line{{At: time.Now(), Stream: Stdout, Text: []byte("next")}})
	if got := collect(t, -1, Source{Path: path}); !slices.Equal(got, []string{"good", "2026-11-22T02:1", "next"}) {
		t.Errorf("%q", got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("2026-11-22T02:10:38.123456789Z stdout F text"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if bytes.IndexByte(b, '\n') >= 0 {
			return
		}
		if l, ok := parseLine(b); ok && l.At.Year() > 0 && l.At.Year() < 9999 {
			again, ok := parseLine(bytes.TrimSuffix(appendLine(nil, l), []byte{'\n'}))
			if !ok || !again.At.Equal(l.At) || again.Stream != l.Stream || again.Partial != l.Partial || !bytes.Equal(again.Text, l.Text) {
				t.Errorf("%q: %+v became %+v", b, l, again)
			}
		}
	})
}

// TestLinkInPlace: readers follow no link from a log's place, as the writer doesn't.
func TestLinkInPlace(t *testing.T) {
	dir := t.TempDir()
	path, other := filepath.Join(dir, "r.log"), filepath.Join(dir, "other")
	secret := string(appendLine(nil, Line{At: time.Now(), Stream: Stderr, Text: []byte("dunnage: 7 lines dropped: the log could not be written: secret")}))
	if err := errors.Join(os.WriteFile(other, []byte(secret), 0o600), os.Symlink(other, path)); err != nil {
		t.Fatal(err)
	}
	var got []string
	err := Read(t.Context(), func() []Source { return []Source{{Path: path}} }, Query{Tail: -1}, func(l spec.LogLine) error {
		got = append(got, string(l.Text))
		return nil
	})
	if err != nil || len(got) != 1 || !strings.Contains(got[0], "r.log is no regular file") {
		t.Errorf("%q, %v", got, err)
	}
	if d, err := Dropped(path, time.Time{}); err != nil || d.Lines != 0 {
		t.Errorf("%+v, %v", d, err)
	}
}
