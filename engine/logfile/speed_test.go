package logfile

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"dunnage/spec"
)

// bigLog writes a log of so many bytes, a line every 10 ms.
func bigLog(t testing.TB, path string, size, limit int64) (last time.Time) {
	t.Helper()
	files := int((size + limit - 1) / limit)
	i := 0
	for n := files - 1; n >= 0; n-- {
		f, err := os.Create(Rotated(path, n))
		if err != nil {
			t.Fatal(err)
		}
		w := bufio.NewWriterSize(f, 1<<20)
		for written := int64(0); written < min(limit, size/int64(files)); i++ {
			last = start.Add(time.Duration(i) * 10 * time.Millisecond)
			k, err := w.Write(appendLine(nil, Line{At: last, Stream: Stdout, Text: fmt.Appendf(nil, "%09d GET /page/%d 200 %s", i, i%977, strings.Repeat("0123456789", 12))}))
			if err != nil {
				t.Fatal(err)
			}
			written += int64(k)
		}
		if err := errors.Join(w.Flush(), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	return last
}

// TestReadsLittle: the last lines and those of a time are found without reading
// the log, be it one file or many compressed ones.
func TestReadsLittle(t *testing.T) {
	const size = 60 << 20
	for name, limit := range map[string]int64{"one file": size, "compressed files": 2 << 20} {
		path := filepath.Join(t.TempDir(), "log")
		last := bigLog(t, path, size, limit)
		for n := range logOlder(t, path) {
			zip(t, path, n, false)
		}
		enough := errors.New("enough")
		for _, c := range []struct {
			what string
			q    Query
		}{
			{"tail", Query{Tail: 100}},
			{"since", Query{Tail: -1, Since: start.Add(last.Sub(start) / 2)}},
			{"until", Query{Tail: 100, Until: start.Add(last.Sub(start) / 2)}},
		} {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			began, lines := time.Now(), 0
			err := Read(t.Context(), paths(Source{Path: path}), c.q, func(spec.LogLine) error {
				if lines++; lines == 100 {
					return enough
				}
				return nil
			})
			took := time.Since(began)
			runtime.ReadMemStats(&after)
			if allocated := after.TotalAlloc - before.TotalAlloc; !errors.Is(err, enough) || allocated > 8<<20 || took > 2*time.Second {
				t.Errorf("%s, %s: %v after %d lines, %v and %d bytes allocated", name, c.what, err, lines, took, allocated)
			}
			t.Logf("%s, %s: %v", name, c.what, took)
		}
	}
}

// TestSearchEnds: who asks for what is nowhere, and goes, is searched for no
// longer.
func TestSearchEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	bigLog(t, path, 10<<20, 10<<20)
	for _, tail := range []int{-1, 5} {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		began := time.Now()
		q := Query{Tail: tail, Grep: regexp.MustCompile("(a|b|ab)*nowhere")}
		if err := Read(ctx, paths(Source{Path: path}), q, func(spec.LogLine) error { return errors.New("found") }); err != nil {
			t.Error(err)
		}
		t.Logf("tail %d: %v", tail, time.Since(began))
	}
}
