package logfile

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"dunnage/engine/logwriter"
	"dunnage/spec"
)

var start = time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)

// said is a whole line of a log.
type said struct {
	at   time.Time
	text string
}

// ask reads what a query chooses, with the parts of each stream joined.
func ask(t testing.TB, q Query, sources ...Source) (out []said) {
	t.Helper()
	open := make(map[string]*said)
	err := Read(t.Context(), paths(sources...), q, func(l spec.LogLine) error {
		s := open[l.Stream]
		if s == nil {
			s = &said{at: l.At}
			open[l.Stream] = s
		}
		s.text += string(l.Text)
		if !l.Partial {
			out = append(out, *s)
			delete(open, l.Stream)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range open {
		out = append(out, *s)
	}
	return out
}

// choose is what Query says, in the plainest way.
func choose(all []said, q Query) (out []said) {
	for _, s := range all {
		if s.at.Before(q.Since) || !q.Until.IsZero() && s.at.After(q.Until) || q.Grep != nil && !q.Grep.MatchString(s.text) {
			continue
		}
		out = append(out, s)
	}
	if q.Tail >= 0 {
		out = out[max(0, len(out)-q.Tail):]
	}
	return out
}

// writeLog writes lines as a writer would that rotates.
func writeLog(t testing.TB, path string, limit int64, lines []said) {
	t.Helper()
	w := NewWriter(path, limit, 1000)
	for _, s := range lines {
		var entries []Line
		text := []byte(s.text)
		for len(text) > int(min(MaxText, limit-100)) {
			n := min(MaxText, limit-100)
			entries = append(entries, Line{At: s.at, Stream: Stdout, Partial: true, Text: text[:n]})
			text = text[n:]
		}
		w.Append(append(entries, Line{At: s.at, Stream: Stdout, Text: text}))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// zip compresses an older file, as the writer does it or, foreign, as gzip does.
func zip(t testing.TB, path string, n int, foreign bool) {
	t.Helper()
	from, err := os.Open(Rotated(path, n))
	if errors.Is(err, os.ErrNotExist) {
		return // rotated meanwhile
	}
	if err != nil {
		t.Fatal(err)
	}
	info, err := from.Stat()
	if err != nil {
		t.Fatal(err)
	}
	to, err := os.Create(path + ".gz.tmp")
	if err != nil {
		t.Fatal(err)
	}
	if foreign {
		z := gzip.NewWriter(to)
		_, err = io.Copy(z, from)
		err = errors.Join(err, z.Close())
	} else {
		err = logwriter.Compress(to, from)
	}
	err = errors.Join(err, to.Close(), from.Close(), os.Chtimes(to.Name(), info.ModTime(), info.ModTime()),
		os.Rename(to.Name(), Compressed(path, n)), os.Remove(Rotated(path, n)))
	if err != nil {
		t.Fatal(err)
	}
}

// TestQueries compares what is read with what was written: random lines, files
// of all sizes, plain and compressed, and random questions.
func TestQueries(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for round := range 10 {
		path := filepath.Join(t.TempDir(), "log")
		var all []said
		now := start
		for i := range 1 + random.IntN(1500) {
			now = now.Add(time.Duration(random.IntN(3)) * time.Second) // some of the same time
			text := fmt.Sprintf("%d %s", i, strings.Repeat("x", random.IntN(300)))
			if random.IntN(100) == 0 {
				text += strings.Repeat("y", random.IntN(100_000)) + "end"
			}
			all = append(all, said{now, text})
		}
		limit := int64(4096 + random.IntN(1<<uint(10+random.IntN(12))))
		writeLog(t, path, limit, all)
		for n := range logOlder(t, path) {
			if kind := random.IntN(4); kind < 2 {
				zip(t, path, n, kind == 0 && random.IntN(5) == 0)
			}
		}
		for range 30 {
			q := Query{Tail: -1}
			if random.IntN(2) == 0 {
				q.Tail = random.IntN(1 + random.IntN(len(all)+2))
			}
			if random.IntN(2) == 0 {
				q.Since = start.Add(time.Duration(random.IntN(len(all)+10)-5) * time.Second)
			}
			if random.IntN(3) == 0 {
				q.Until = start.Add(time.Duration(random.IntN(len(all)+10)-5) * time.Second)
			}
			if random.IntN(3) == 0 {
				q.Grep = regexp.MustCompile([]string{"7", "^1", "end$", "^nothing", "x$", "^[0-9]*5 .*yend$"}[random.IntN(6)])
			}
			if got, want := ask(t, q, Source{Path: path}), choose(all, q); !slices.Equal(got, want) {
				t.Fatalf("round %d, %d lines in files of %d bytes, %+v: got %d lines, want %d", round, len(all), limit, q, len(got), len(want))
			}
		}
	}
}

func logOlder(t testing.TB, path string) map[int]bool {
	t.Helper()
	found, err := listOlder(path)
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[int]bool)
	for n := range maps.Keys(found) {
		out[n] = true
	}
	return out
}

// TestFollowThroughRotationAndCompression: a writer rotates all the time, and
// what it leaves is compressed at once. Readers that follow, one of whom takes
// his time, see each line once and in order.
func TestFollowThroughRotationAndCompression(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	const lines = 4000
	w := NewWriter(path, 4<<10, 1000)
	written := make(chan struct{})
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	var readers []chan error
	for _, slow := range []int{0, 400} {
		done := make(chan error, 1)
		readers = append(readers, done)
		seen := 0
		go func() {
			enough := errors.New("enough")
			err := Read(ctx, paths(Source{Path: path}), Query{Tail: -1, Follow: true}, func(l spec.LogLine) error {
				if want := fmt.Sprintf("line %d", seen); string(l.Text) != want {
					return fmt.Errorf("got %s, want %s", l.Text, want)
				}
				if seen++; seen == lines {
					return enough
				}
				if slow > 0 && seen%slow == 0 {
					time.Sleep(50 * time.Millisecond)
				}
				return nil
			})
			if errors.Is(err, enough) {
				err = nil
			} else if err == nil {
				err = fmt.Errorf("%d lines", seen)
			}
			done <- err
		}()
	}
	var compressing atomic.Int64
	go func() {
		defer close(written)
		for i := range lines {
			w.Append([]Line{{At: time.Now(), Stream: Stdout, Text: fmt.Appendf(nil, "line %d", i)}})
			if i%150 == 149 {
				compressing.Store(0)
				for n := range logOlder(t, path) {
					if _, err := os.Stat(Rotated(path, n)); err == nil && n%3 != 0 {
						zip(t, path, n, false)
						compressing.Add(1)
					}
				}
				time.Sleep(20 * time.Millisecond)
			}
		}
	}()
	<-written
	for _, done := range readers {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestClockSetBack: lines that a wrong clock dated later are found by their
// date, and those that the right one dated then, too.
func TestClockSetBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	var all []said
	for i := range 20_000 {
		at := start.Add(time.Duration(i) * time.Second)
		if i > 5000 && i < 8000 {
			at = at.Add(24 * time.Hour)
		}
		all = append(all, said{at, fmt.Sprintf("%0200d", i)})
	}
	for _, limit := range []int64{1_200_000, 10 << 20} {
		path := path + fmt.Sprint(limit)
		writeLog(t, path, limit, all)
		for n := range logOlder(t, path) {
			if n%2 == 0 {
				zip(t, path, n, false)
			}
		}
		for _, q := range []Query{
			{Tail: -1, Since: start.Add(24 * time.Hour)}, {Tail: -1, Since: start.Add(15_000 * time.Second)},
			{Tail: -1, Until: start.Add(9000 * time.Second)}, {Tail: 10, Until: start.Add(30_000 * time.Second)},
		} {
			if got, want := ask(t, q, Source{Path: path}), choose(all, q); !slices.Equal(got, want) {
				t.Errorf("files of %d, %+v: %d lines, want %d", limit, q, len(got), len(want))
			}
		}
	}
}

// TestEmptiedFile: a log of one file is emptied when it is full; who follows
// goes on with what comes then, also when it has grown beyond where he was.
func TestEmptiedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := NewWriter(path, 4<<10, 1)
	say := func(at int, text string) {
		w.Append([]Line{{At: start.Add(time.Duration(at)), Stream: Stdout, Text: []byte(text)}})
	}
	say(0, "first")
	lines := make(chan string, 1000)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		done <- Read(ctx, paths(Source{Path: path}), Query{Tail: -1, Follow: true}, func(l spec.LogLine) error {
			lines <- string(l.Text)
			return nil
		})
	}()
	if got := <-lines; got != "first" {
		t.Error(got)
	}
	for i := 1; i < 200; i++ { // emptied, and longer than "first" again
		say(i, fmt.Sprint(i))
	}
	kept := ask(t, Query{Tail: -1}, Source{Path: path})
	got := []string{""}
	for got[len(got)-1] != "199" { // what was emptied before he looked is gone
		got = append(got, <-lines)
	}
	for i, want := range kept {
		if at := len(got) - len(kept) + i; at < 0 || got[at] != want.text {
			t.Fatalf("got %q, want them to end with %v", got, kept)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestHalfAnEntryTakenBack: a writer on a full disk cuts off what it could not
// write whole. Who has read the half goes on behind it.
func TestHalfAnEntryTakenBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	whole := string(appendLine(nil, Line{At: start, Stream: Stdout, Text: []byte("one")}))
	if err := os.WriteFile(path, []byte(whole+whole[:35]), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := newCursor(t.Context(), path, Query{Tail: -1, Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.close() //nolint:errcheck // read only
	next := func() string {
		l, ok, err := c.next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return ""
		}
		return string(l.Text)
	}
	if a, b := next(), next(); a != "one" || b != "" {
		t.Errorf("%q, %q", a, b)
	}
	if err := os.Truncate(path, int64(len(whole))); err != nil {
		t.Fatal(err)
	}
	if _, err := c.look(); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(strings.Replace(whole, "one", "two", 1)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.look(); err != nil {
		t.Fatal(err)
	}
	if a, b := next(), next(); a != "two" || b != "" {
		t.Errorf("%q, %q", a, b)
	}
}

// TestFollowUntil ends by itself.
func TestFollowUntil(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := NewWriter(path, 4<<10, 2)
	w.Append([]Line{{At: time.Now(), Stream: Stdout, Text: []byte("x")}})
	for _, until := range []time.Time{start.AddDate(-1, 0, 0), time.Now().Add(time.Second)} {
		got := ask(t, Query{Tail: -1, Follow: true, Until: until}, Source{Path: path})
		if want := until.After(start); want != (len(got) == 1) && time.Now().After(start) {
			t.Errorf("until %v: %v", until, got)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestFollowLeavesGoneLogs: who follows for a year doesn't hold the logs of all
// replicas that there ever were.
func TestFollowLeavesGoneLogs(t *testing.T) {
	dir := t.TempDir()
	r := &reader{query: Query{Tail: -1, Follow: true}, cursors: make(map[Source]*cursor)}
	s := Source{Replica: "a", Path: filepath.Join(dir, "a.log")}
	writeLog(t, s.Path, 4<<10, []said{{start, "x"}})
	if err := r.add(t.Context(), []Source{s}, r.query); err != nil {
		t.Fatal(err)
	}
	if err := r.look(nil); err != nil || len(r.cursors) != 1 {
		t.Errorf("%d, %v, and it is still there", len(r.cursors), err)
	}
	if err := os.Remove(s.Path); err != nil {
		t.Fatal(err)
	}
	if err := r.look([]Source{s}); err != nil || len(r.cursors) != 1 {
		t.Errorf("%d, %v, and it may come back", len(r.cursors), err)
	}
	if err := r.look(nil); err != nil || len(r.cursors) != 0 {
		t.Errorf("%d, %v", len(r.cursors), err)
	}
}

// TestFollowMeetsOldLog: of a replica that comes back while somebody follows,
// what it wrote in its earlier life isn't shown as new, but all since then is,
// across a rotation too; with Since, what was written from then on.
func TestFollowMeetsOldLog(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		q    Query
		want []string
	}{
		"nothing of the past":  {Query{Follow: true}, []string{"new", "newer", "last"}},
		"a line of the past":   {Query{Tail: 1, Follow: true}, []string{"there", "new", "newer", "last"}},
		"all of the past":      {Query{Tail: -1, Follow: true}, []string{"there", "new", "newer", "last"}},
		"since a time":         {Query{Tail: -1, Since: now.Add(-time.Minute), Follow: true}, []string{"there", "late", "new", "newer", "last"}},
		"since a time to come": {Query{Tail: -1, Since: now.Add(time.Minute), Follow: true}, []string{"newer", "last"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			there, back := Source{Replica: "there", Path: filepath.Join(dir, "there")}, Source{Replica: "back", Path: filepath.Join(dir, "back")}
			writeLog(t, there.Path, 4<<10, []said{{now.Add(-time.Second), "there"}})
			var old []said
			for i := range 100 { // some files of them
				old = append(old, said{now.Add(-time.Hour), fmt.Sprintf("%0200d", i)})
			}
			writeLog(t, back.Path, 4<<10, append(old, said{now.Add(-30 * time.Second), "late"}))
			asked := 0
			sources := func() []Source {
				if asked++; asked == 1 {
					return []Source{there}
				}
				if asked == 2 {
					writeLog(t, back.Path, 4<<10, []said{{time.Now(), "new"}, {now.Add(time.Hour), "newer"}})
				}
				if asked == 3 {
					writeLog(t, back.Path, 200, []said{{now.Add(2 * time.Hour), "last"}})
				}
				return []Source{there, back}
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			var got []string
			err := Read(ctx, sources, c.q, func(l spec.LogLine) error {
				got = append(got, string(l.Text))
				if got[len(got)-1] == "last" {
					cancel()
				}
				return nil
			})
			if err != nil || !slices.Equal(got, c.want) {
				t.Errorf("got %q, %v, want %q", got, err, c.want)
			}
		})
	}
}

// TestDamagedFiles: what a power cut or a stray program left is shown, if there
// is anything to show, and what is whole around it, too.
func TestDamagedFiles(t *testing.T) {
	entry := func(text string) string { return "2026-11-22T02:10:38Z stdout F " + text + "\n" }
	zeros := strings.Repeat("\x00", 5000)
	long := strings.Repeat("z", 5*longestEntry)
	for name, c := range map[string]struct{ text, want string }{
		"zeros, then a line":  {entry("a") + zeros + entry("b"), "a b"},
		"zeros alone":         {entry("a") + zeros + "\n" + entry("b") + zeros, "a b"},
		"half a line":         {entry("a") + "2026-11-22T02:1\n" + entry("b"), "a 2026-11-22T02:1 b"},
		"another format":      {`{"log":"x"}` + "\n" + entry("b"), `{"log":"x"} b`},
		"no end":              {entry("a") + long + "\n" + entry("b"), "a " + long + " b"},
		"a part without more": {entry("a") + "2026-11-22T02:10:38Z stdout P x\n", "a x"},
		"unknown streams":     {"2026-11-22T02:10:38Z x F a\n2026-11-22T02:10:38Z y F b\n", "a b"},
		"long entry":          {"2026-11-22T02:10:38Z stdout F " + long + "\n" + entry("b"), long + " b"},
	} {
		path := filepath.Join(t.TempDir(), "log")
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, s := range ask(t, Query{Tail: -1}, Source{Path: path}) {
			got = append(got, s.text)
		}
		if text := strings.Join(got, " "); text != c.want {
			t.Errorf("%s: %.100q, want %.100q", name, text, c.want)
		}
		want := strings.Fields(c.want)
		if last := ask(t, Query{Tail: 1, Grep: regexp.MustCompile("[a-z]")}, Source{Path: path}); len(last) != 1 || last[0].text != want[len(want)-1] {
			t.Errorf("%s: the last one is %.100s", name, fmt.Sprint(last))
		}
	}
}

// TestDamagedCompression: of a compressed file, what can be unpacked is shown,
// and a line tells of the rest.
func TestDamagedCompression(t *testing.T) {
	var all []said
	random := rand.New(rand.NewPCG(3, 6)) // with these, the byte makes a member longer
	for i := range 20_000 {
		all = append(all, said{start.Add(time.Duration(i) * time.Second), fmt.Sprintf("%d %x", i, random.Uint64())})
	}
	for name, harm := range map[string]func([]byte) []byte{
		"a byte":  func(b []byte) []byte { b[len(b)/2] ^= 0xff; return b },
		"cut":     func(b []byte) []byte { return b[:len(b)/2] },
		"zeros":   func(b []byte) []byte { clear(b); return b },
		"nothing": func([]byte) []byte { return nil },
	} {
		path := filepath.Join(t.TempDir(), "log")
		writeLog(t, path, 800_000, all)
		zip(t, path, 1, false)
		b, err := os.ReadFile(Compressed(path, 1))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(Compressed(path, 1), harm(bytes.Clone(b)), 0o600); err != nil {
			t.Fatal(err)
		}
		got := ask(t, Query{Tail: -1}, Source{Path: path})
		told := slices.ContainsFunc(got, func(s said) bool { return strings.Contains(s.text, "dunnage: the log ") })
		if got[len(got)-1] != all[len(all)-1] || told == (name == "nothing") || name == "a byte" && len(got) < len(all)-10_000 {
			t.Errorf("%s: %d of %d lines, told: %v", name, len(got), len(all), told)
		}
		for _, q := range []Query{{Tail: 19_000}, {Tail: -1, Since: start.Add(time.Hour)}, {Tail: 100, Grep: regexp.MustCompile("7 ")}} {
			if got := ask(t, q, Source{Path: path}); len(got) == 0 || !strings.HasPrefix(got[len(got)-1].text, "199") {
				t.Errorf("%s, %+v: %d lines", name, q, len(got))
			}
		}
	}
}

// TestDamageAfterALine: a compressed file of another program that is cut where a line
// ends shows no empty line.
func TestDamageAfterALine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	writeLog(t, Rotated(path, 1), 1<<20, []said{{start, "1"}, {start.Add(time.Second), "2"}})
	writeLog(t, path, 1<<20, []said{{start.Add(2 * time.Second), "3"}})
	zip(t, path, 1, true)
	info, err := os.Stat(Compressed(path, 1))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(Compressed(path, 1), info.Size()-4); err != nil { // in the checksum
		t.Fatal(err)
	}
	var got []string
	for _, s := range ask(t, Query{Tail: -1}, Source{Path: path}) {
		got = append(got, s.text)
	}
	want := []string{"1", "2", "dunnage: the log is damaged here, and the rest of its file can't be read: unexpected EOF", "3"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if err := os.WriteFile(Compressed(path, 1), make([]byte, 100), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, Query{Tail: -1}, Source{Path: path}); len(got) != 2 || !strings.HasPrefix(got[0].text, "dunnage: the log is damaged here") {
		t.Errorf("of zeros: %v", got)
	}
}

// TestFollowerIsOvertaken: where files came and went while a follower was busy,
// a line says so; where it kept up, none does.
func TestFollowerIsOvertaken(t *testing.T) {
	const limit, keep = 4 << 10, 3
	for name, c := range map[string]struct {
		lines int // that are written while the follower is busy; some 13 fit into a file
		told  bool
	}{
		"no rotation":  {5, false},
		"two":          {30, false},
		"ten":          {130, true},
		"a whole life": {1300, true},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "log")
			w := NewWriter(path, limit, keep)
			write := func(text string) {
				w.Append([]Line{{At: time.Now(), Stream: Stdout, Text: fmt.Appendf(nil, "%s %s", text, strings.Repeat("x", 250))}})
			}
			write("first")
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			enough := errors.New("enough")
			var got []string
			err := Read(ctx, paths(Source{Path: path}), Query{Tail: -1, Follow: true}, func(l spec.LogLine) error {
				text, _, _ := strings.Cut(string(l.Text), " xxx")
				got = append(got, text)
				switch text {
				case "first":
					for i := range c.lines {
						write(fmt.Sprint(i))
					}
					write("last")
				case "last":
					return enough
				}
				return nil
			})
			if !errors.Is(err, enough) {
				t.Fatalf("%v after %d lines", err, len(got))
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			told, next := 0, 0
			for _, text := range got[1 : len(got)-1] {
				if text == "dunnage: "+missing {
					told++
					continue
				}
				if text != fmt.Sprint(next) && told == 0 {
					t.Errorf("%s comes where %d should, and nothing says why", text, next)
				}
				n, err := strconv.Atoi(text)
				if err != nil {
					t.Fatalf("%q is no line of it", text)
				}
				next = n + 1
			}
			if next != c.lines || (told == 1) != c.told || told > 1 {
				t.Errorf("told %d times, %d lines of %d, the last one %d", told, len(got), c.lines, next-1)
			}
		})
	}
}

// TestOddFiles: what is no file at all is left out, with a line in its place,
// and ends nobody's reading.
func TestOddFiles(t *testing.T) {
	directory := func(path string) error { return os.Mkdir(path, 0o700) }
	fifo := func(path string) error { return syscall.Mkfifo(path, 0o600) }
	loop := func(path string) error { return os.Symlink(filepath.Base(path), path) }
	socket := func(path string) error {
		l, err := net.Listen("unix", path)
		if err == nil {
			l.(*net.UnixListener).SetUnlinkOnClose(false)
			err = l.Close()
		}
		return err
	}
	for name, c := range map[string]struct {
		make   func(path string) error
		number int // of the odd one
		zip    bool
		want   []string
	}{
		"directory as the log":  {directory, 0, false, []string{"1", "3", "4", "dunnage: X.log is no regular file: left out", "9"}},
		"FIFO as the log":       {fifo, 0, false, []string{"1", "3", "4", "dunnage: X.log is no regular file: left out", "9"}},
		"FIFO as the next":      {fifo, 1, false, []string{"1", "3", "dunnage: X.log.1 is no regular file: left out", "5", "9"}},
		"socket as the next":    {socket, 1, false, []string{"1", "3", "dunnage: X.log.1 is no regular file: left out", "5", "9"}},
		"loop as the next":      {loop, 1, false, []string{"1", "3", "dunnage: X.log.1 is no regular file: left out", "5", "9"}},
		"directory as the next": {directory, 1, true, []string{"1", "3", "dunnage: X.log.1.gz is no regular file: left out", "5", "9"}},
		"FIFO as the oldest":    {fifo, 2, false, []string{"1", "dunnage: X.log.2 is no regular file: left out", "4", "5", "9"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			x, other := filepath.Join(dir, "X.log"), filepath.Join(dir, "other.log")
			writeLog(t, other, 4<<10, []said{{start.Add(time.Second), "1"}, {start.Add(9 * time.Second), "9"}})
			files := []said{{start.Add(5 * time.Second), "5"}, {start.Add(4 * time.Second), "4"}, {start.Add(3 * time.Second), "3"}}
			for n, s := range files {
				path := Rotated(x, n)
				if n == c.number && c.zip {
					path = Compressed(x, n)
				}
				if n != c.number {
					writeLog(t, path, 4<<10, []said{s})
				} else if err := c.make(path); err != nil {
					t.Fatal(err)
				}
			}
			sources := []Source{{Replica: "other", Path: other}, {Replica: "x", Path: x}}
			var got []string
			for _, s := range ask(t, Query{Tail: -1}, sources...) {
				got = append(got, s.text)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// TestOddFileWhileFollowing: a directory that comes in a log's place ends no
// reading, is told of once, and what is written when it is gone is read.
func TestOddFileWhileFollowing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "X.log")
	writeLog(t, path, 4<<10, []said{{start, "before"}})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	enough := errors.New("enough")
	var got []string
	err := Read(ctx, paths(Source{Path: path}), Query{Tail: -1, Follow: true}, func(l spec.LogLine) error {
		got = append(got, string(l.Text))
		switch string(l.Text) {
		case "before":
			return errors.Join(os.Remove(path), os.Mkdir(path, 0o700))
		case "after":
			return enough
		}
		time.AfterFunc(3*pollEvery, func() { // it would be told of again
			if err := os.Remove(path); err == nil {
				writeLog(t, path, 4<<10, []said{{start.Add(time.Second), "after"}})
			}
		})
		return nil
	})
	if want := []string{"before", "dunnage: " + missing, "dunnage: X.log is no regular file: left out", "after"}; !errors.Is(err, enough) || !slices.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

// FuzzRead: no bytes in the files of a log break reading, and each question
// gets an answer.
func FuzzRead(f *testing.F) {
	f.Add([]byte("2026-11-22T02:10:38Z stdout F a\n\x00\x00\n2026-11-22T02:10:39Z stderr P b\n"), []byte{0x1f, 0x8b, 8, 4, 0}, 3)
	f.Add([]byte("text\n"), []byte(nil), 0)
	f.Fuzz(func(t *testing.T, current, older []byte, tail int) {
		path := filepath.Join(t.TempDir(), "log")
		for name, b := range map[string][]byte{path: current, Compressed(path, 1): older, Rotated(path, 2): current} {
			if err := os.WriteFile(name, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		all := ask(t, Query{Tail: -1}, Source{Path: path})
		if tail = max(tail, 0); len(ask(t, Query{Tail: tail}, Source{Path: path})) > max(tail+3, 0)+len(all) {
			t.Errorf("tail %d gives more than there is", tail)
		}
		ask(t, Query{Tail: 2, Since: start, Grep: regexp.MustCompile("a")}, Source{Path: path})
		ask(t, Query{Tail: -1, Until: start}, Source{Path: path})
	})
}
