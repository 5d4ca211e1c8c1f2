package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"dunnage/internal/testenv"
	"dunnage/spec"
)

var day = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func openHistory(dir string, limit int64) *History {
	h := OpenHistory(dir, slog.New(slog.NewTextHandler(io.Discard, nil)))
	h.limit = limit
	return h
}

// add appends events from..to.
func (h *History) add(from, to uint64) {
	for seq := from; seq <= to; seq++ {
		h.Append(spec.Event{Seq: seq, At: day.Add(time.Duration(seq) * time.Second), Kind: spec.EventReady, Replica: "shop-web-1"})
	}
}

// keep appends events from..to and waits until they are written.
func (h *History) keep(from, to uint64) {
	h.add(from, to)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	h.Run(ctx)
}

// kept are the numbers of the events that Read sends, as ranges.
func (h *History) kept(t *testing.T, after, before uint64) string {
	t.Helper()
	var out []string
	first, last := uint64(0), uint64(0)
	flush := func() {
		if first > 0 {
			out = append(out, fmt.Sprintf("%d-%d", first, last))
		}
	}
	err := h.Read(after, before, func(e spec.Event) error {
		if want := day.Add(time.Duration(e.Seq) * time.Second); !e.At.Equal(want) || e.Kind != spec.EventReady || e.Replica != "shop-web-1" {
			t.Errorf("%+v isn't what was kept", e)
		}
		if e.Seq != last+1 || first == 0 {
			flush()
			first = e.Seq
		}
		last = e.Seq
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	flush()
	return strings.Join(out, " ")
}

const allEvents = 1 << 62

func TestHistoryOutlivesItsProcess(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "events")
	h := openHistory(dir, 1<<20)
	if got := h.kept(t, 0, allEvents); got != "" || h.Last().Seq != 0 || !h.Oldest().IsZero() {
		t.Errorf("at first %q, %d, %s", got, h.Last().Seq, h.Oldest())
	}
	h.keep(1, 100)
	h = openHistory(dir, 1<<20)
	if h.Last().Seq != 100 || !h.Oldest().Equal(day.Add(time.Second)) {
		t.Errorf("last %d, oldest %s", h.Last().Seq, h.Oldest())
	}
	h.keep(201, 300)
	if got := h.kept(t, 0, allEvents); got != "1-100 201-300" {
		t.Errorf("kept %s", got)
	}
	if got := h.kept(t, 50, 250); got != "51-100 201-249" {
		t.Errorf("of a part %s", got)
	}
	stop := errors.New("stop")
	if err := h.Read(0, allEvents, func(spec.Event) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("a reader who has enough: %v", err)
	}
}

// TestHistoryIsBounded: the oldest events go, and what stays has no gap.
func TestHistoryIsBounded(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "events")
	const limit = 8 << 10
	h := openHistory(dir, limit)
	for n := uint64(0); n < 10; n++ {
		h.keep(100*n+1, 100*n+100)
		files, err := filepath.Glob(dir + "/*")
		if err != nil || len(files) > 2 {
			t.Fatalf("%v, %v", files, err)
		}
		for _, f := range files {
			if info, err := os.Stat(f); err != nil || info.Size() > limit {
				t.Errorf("%s: %+v, %v", f, info, err)
			}
		}
	}
	var first, last uint64
	got := h.kept(t, 0, allEvents)
	if n, err := fmt.Sscanf(got, "%d-%d", &first, &last); n != 2 || err != nil || last != 1000 || first < 800 || first > 950 {
		t.Errorf("kept %s", got)
	}
	if want := day.Add(time.Duration(first) * time.Second); !h.Oldest().Equal(want) {
		t.Errorf("the oldest is of %s, not %s", h.Oldest(), want)
	}
}

// TestHistoryAfterACrash: a torn line and a hole, as a power cut leaves them, cost
// what they hit and no more.
func TestHistoryAfterACrash(t *testing.T) {
	for name, tail := range map[string]string{
		"torn line": `{"seq":11,"at":"2026-`, "hole": strings.Repeat("\x00", 5000), "hole, then a line end": strings.Repeat("\x00", 500) + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "events")
			h := openHistory(dir, 1<<20)
			h.keep(1, 10)
			f, err := os.OpenFile(h.paths()[1], os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteString(tail); err != nil {
				t.Fatal(err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			h = openHistory(dir, 1<<20)
			if h.Last().Seq != 10 {
				t.Errorf("last %d", h.Last().Seq)
			}
			h.keep(21, 30)
			if got := h.kept(t, 0, allEvents); got != "1-10 21-30" {
				t.Errorf("kept %s", got)
			}
		})
	}
}

// TestHistoryIsRemoved: what others do to the files costs what was in them, not
// what comes later.
func TestHistoryIsRemoved(t *testing.T) {
	for name, c := range map[string]struct {
		remove func(dir, file string) error
		kept   string
		oldest uint64
	}{
		"file":      {func(_, file string) error { return os.Remove(file) }, "11-20", 11},
		"directory": {func(dir, _ string) error { return os.RemoveAll(dir) }, "11-20", 11},
		"emptied":   {func(_, file string) error { return os.Truncate(file, 0) }, "11-20", 11},
		"renamed":   {func(_, file string) error { return os.Rename(file, file+".bak") }, "11-20", 11},
		"replaced": {func(_, file string) error {
			b, err := os.ReadFile(file)
			return errors.Join(err, os.Remove(file), os.WriteFile(file, b, 0o600))
		}, "1-20", 1},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "events")
			h := openHistory(dir, 1<<20)
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan struct{})
			go func() { h.Run(ctx); close(ended) }() // keeps its file open, as in an agent
			h.add(1, 10)
			for deadline := time.Now().Add(10 * time.Second); h.kept(t, 0, allEvents) != "1-10"; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("kept %s", h.kept(t, 0, allEvents))
				}
			}
			if err := c.remove(dir, filepath.Join(dir, "events.jsonl")); err != nil {
				t.Fatal(err)
			}
			h.add(11, 20)
			cancel()
			<-ended
			if got := h.kept(t, 0, allEvents); got != c.kept {
				t.Errorf("kept %q, want %s", got, c.kept)
			}
			if want := day.Add(time.Duration(c.oldest) * time.Second); !h.Oldest().Equal(want) {
				t.Errorf("the oldest is of %s, want %s", h.Oldest(), want)
			}
		})
	}
}

// TestHistoryWithoutRoom: who appends doesn't notice, and when there is room
// again it goes on.
func TestHistoryWithoutRoom(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "events")
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // nothing can be made in it
		t.Fatal(err)
	}
	h := openHistory(dir, 1<<20)
	h.keep(1, 10)
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	h.keep(11, 20)
	if got := h.kept(t, 0, allEvents); got != "11-20" {
		t.Errorf("kept %s", got)
	}
	began := time.Now()
	for seq := uint64(21); seq < 21+2*historyQueue; seq++ { // nobody writes
		h.Append(spec.Event{Seq: seq, At: day.Add(time.Duration(seq) * time.Second), Kind: spec.EventReady, Replica: "shop-web-1"})
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("to append took %s without a writer", took)
	}

}

// TestHistoryOnAFullDisk: what there is only half a line's room for is not kept,
// and leaves nothing behind; when there is room again, it goes on.
func TestHistoryOnAFullDisk(t *testing.T) {
	dir := testenv.SmallDisk(t, "size=64k")
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 48<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	h := openHistory(dir, 1<<20)
	h.keep(1, 1000) // some 100 KiB
	got := h.kept(t, 0, allEvents)
	var last uint64
	if n, err := fmt.Sscanf(got, "1-%d", &last); n != 1 || err != nil || last < 10 || last > 500 {
		t.Fatalf("kept %s of what there was no room for", got)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	h.keep(1001, 1010)
	if again := h.kept(t, 0, allEvents); again != got+" 1001-1010" {
		t.Errorf("kept %s, and then %s", got, again)
	}
}

// What would block whoever opens it, in the place of either file, costs events.
func TestHistoryOfAFIFO(t *testing.T) {
	for _, name := range []string{"events.jsonl", "events.1.jsonl"} {
		dir := t.TempDir()
		if err := syscall.Mkfifo(filepath.Join(dir, name), 0o600); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			h := openHistory(dir, historySize)
			h.keep(1, 2)
			done <- h.Read(0, 9, func(spec.Event) error { return nil })
		}()
		select {
		case err := <-done:
			if err == nil || !strings.Contains(err.Error(), name+" is no regular file: move it away") {
				t.Errorf("%s: %v", name, err)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: it hangs", name)
		}
	}
}

// TestHistoryTellsWhatIsLost: why events aren't kept and how many, until they can be
// again, also where no other happens.
func TestHistoryTellsWhatIsLost(t *testing.T) {
	for name, hinder := range map[string]func(dir string) (undo string, err error){
		"no directory": func(dir string) (string, error) { return dir, syscall.Mkfifo(dir, 0o600) },
		"no rotation": func(dir string) (string, error) {
			err := errors.Join(os.MkdirAll(filepath.Join(dir, "events.1.jsonl"), 0o700),
				os.WriteFile(filepath.Join(dir, "events.jsonl"), []byte(strings.Repeat("\n", 1<<16)), 0o600))
			return filepath.Join(dir, "events.1.jsonl"), err
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "events")
			undo, err := hinder(dir)
			if err != nil {
				t.Fatal(err)
			}
			h := openHistory(dir, 1<<16)
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan struct{})
			go func() { h.Run(ctx); close(ended) }()
			await := func(what string, done func(why string, lost int) bool) {
				t.Helper()
				why, lost := h.Unkept()
				for deadline := time.Now().Add(10 * time.Second); !done(why, lost); why, lost = h.Unkept() {
					if time.Now().After(deadline) {
						t.Fatalf("%s: %q, %d", what, why, lost)
					}
					time.Sleep(time.Millisecond)
				}
			}
			h.add(1, 10)
			await("hindered", func(why string, lost int) bool { return strings.Contains(why, dir) && lost == 10 })
			if err := os.Remove(undo); err != nil {
				t.Fatal(err)
			}
			await("no longer", func(why string, lost int) bool { return why == "" && lost == 10 })
			if why, lost := h.Unkept(); why != "" || lost != 0 {
				t.Errorf("told twice: %q, %d", why, lost)
			}
			h.add(11, 20)
			cancel()
			<-ended
			if got := h.kept(t, 0, allEvents); got != "11-20" {
				t.Errorf("kept %s", got)
			}
		})
	}
}
