package logwriter

import (
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// compressed is the text as Compress writes it.
func compressed(t *testing.T, text string) (*os.File, int64) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "log.1.gz"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if err := Compress(f, strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		t.Fatal(err)
	}
	return f, size
}

func unzip(t *testing.T, r io.Reader) string {
	t.Helper()
	z, err := gzip.NewReader(r)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestCompress: any reader of gzip gets the same text, and each member by
// itself is whole entries and begins at the time that its header says.
func TestCompress(t *testing.T) {
	base := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	var many strings.Builder
	for i := range 20_000 {
		many.Write(AppendLine(nil, Line{At: base.Add(time.Duration(i) * time.Millisecond), Stream: Stdout, Text: fmt.Appendf(nil, "line %d", i)}))
	}
	long := string(AppendLine(nil, Line{At: base, Stream: Stdout, Text: []byte(strings.Repeat("x", 3*memberText))}))
	for name, text := range map[string]string{
		"nothing": "", "one": "2026-11-22T02:10:38Z stdout F x\n", "many": many.String(), "no end": many.String() + "2026-11-22T02",
		"longer than a member": long + long + "2026-11-22T02:10:38Z stdout F x\n", "no entries": strings.Repeat("text\n", 100_000),
	} {
		t.Run(name, func(t *testing.T) {
			f, size := compressed(t, text)
			members, err := Members(f, size)
			if err != nil {
				t.Fatal(err)
			}
			all := ""
			for i, m := range members {
				part := unzip(t, io.NewSectionReader(f, m.At, m.Size))
				if int64(len(part)) != m.Text || i < len(members)-1 && !strings.HasSuffix(part, "\n") {
					t.Fatalf("member %d: %d bytes, said %d", i, len(part), m.Text)
				}
				entry, _, _ := strings.Cut(part, "\n")
				if l, ok := ParseLine([]byte(entry)); ok && !l.At.Equal(m.First) {
					t.Errorf("member %d begins at %v, said %v", i, l.At, m.First)
				}
				all += part
			}
			if all != text {
				t.Errorf("%d bytes became %d", len(text), len(all))
			}
			if text != "" && unzip(t, io.NewSectionReader(f, 0, size)) != text {
				t.Error("a plain reader of gzip sees something else")
			}
			if want := len(text) / memberText / 4; len(members) < want {
				t.Errorf("%d members", len(members))
			}
		})
	}
}

// TestMembersOfOthers: what isn't ours is told, not misread.
func TestMembersOfOthers(t *testing.T) {
	var b strings.Builder
	z := gzip.NewWriter(&b)
	if _, err := z.Write([]byte(strings.Repeat("text\n", 1000))); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	ours, size := compressed(t, "2026-11-22T02:10:38Z stdout F x\n")
	whole, err := io.ReadAll(io.NewSectionReader(ours, 0, size))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"gzip's own": b.String(), "text": strings.Repeat("text\n", 100), "cut": string(whole[:len(whole)-1]), "cut in its header": string(whole[:20]), "more after it": string(whole) + "x"} {
		if m, err := Members(strings.NewReader(text), int64(len(text))); err == nil {
			t.Errorf("%s: %d members", name, len(m))
		}
	}
}
