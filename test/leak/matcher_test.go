package leak

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// noise is text of random letters, as long as a small database.
func noise(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// Every form of every value is found, wherever it stands, and nothing else is.
func TestMatcherFindsEachForm(t *testing.T) {
	canaries := NewCanaries("x", "c", 20)
	m := NewMatcher(canaries)
	clean := noise(1 << 16)
	if found := m.Find(clean); len(found) > 0 {
		t.Fatalf("in noise: %v", found)
	}
	reverse := func(s string) string {
		b := []byte(s)
		slices.Reverse(b)
		return string(b)
	}
	quoted := func(s string) string {
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	forms := map[string]func(string) string{
		"raw":         func(s string) string { return s },
		"base64 0":    func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) },
		"base64 1":    func(s string) string { return base64.StdEncoding.EncodeToString([]byte("x" + s + "yz")) },
		"base64 2":    func(s string) string { return base64.StdEncoding.EncodeToString([]byte("xx" + s + "y")) },
		"base64url 0": func(s string) string { return base64.URLEncoding.EncodeToString([]byte(s + "y")) },
		"base64url 1": func(s string) string { return base64.URLEncoding.EncodeToString([]byte("x" + s)) },
		"base64url 2": func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte("xx" + s)) },
		"hex":         func(s string) string { return hex.EncodeToString([]byte(s)) },
		"HEX":         func(s string) string { return strings.ToUpper(hex.EncodeToString([]byte(s))) },
		"query":       url.QueryEscape,
		"path":        url.PathEscape,
		"json":        quoted,
		"json twice":  func(s string) string { return quoted(quoted(s)) },
		"reversed":    reverse,
	}
	for name, write := range forms {
		for i, c := range canaries {
			for v, value := range c.Values {
				b := slices.Clone(clean)
				copy(b[1000+7*i+v:], write(value))
				found := m.Find(b)
				if len(found) != 1 || found[0].Canary != i {
					t.Errorf("%s of %s: %v", name, c.Name, found)
				}
			}
		}
	}
}

// All parts of 16 bytes are found at all positions, and none of 15.
func TestMatcherFindsEachWindow(t *testing.T) {
	canaries := NewCanaries("x", "c", 1)
	m := NewMatcher(canaries)
	value := canaries[0].Values[1]
	for _, f := range formsOf(value) {
		for o := 0; o+window <= len(f.text); o++ {
			for shift := range block {
				b := bytes.Repeat([]byte{0xff}, 64)
				copy(b[shift:], f.text[o:o+window])
				if len(m.Find(b)) != 1 {
					t.Fatalf("%s: %q at %d isn't found", f.name, f.text[o:o+window], shift)
				}
				b = bytes.Repeat([]byte{0xff}, 64)
				copy(b[shift:], f.text[o:o+window-1])
				if len(m.Find(b)) != 0 {
					t.Fatalf("%s: %q at %d counts, and is too short", f.name, f.text[o:o+window-1], shift)
				}
			}
		}
	}
}

// What special characters become is looked for too, where no 16 letters in a
// row stand beside them.
func TestMatcherKnowsEscapes(t *testing.T) {
	c := Canary{Values: []string{strings.Repeat(`"&/é`, 6)}}
	m := NewMatcher([]Canary{c})
	for form, text := range map[string]string{
		"url":  url.QueryEscape(c.Values[0]),
		"json": fmt.Sprintf(`{"x":%q}`, strings.Repeat(`\"\u0026/é`, 6)),
	} {
		found := m.Find([]byte(text))
		if form == "json" {
			b, _ := json.Marshal(c.Values[0])
			found = m.Find(b)
		}
		if len(found) != 1 || found[0].Form != form {
			t.Errorf("%s: %v", form, found)
		}
	}
}

// A value that two reads share is found, and so is one at the very end.
func TestMatcherReads(t *testing.T) {
	canaries := NewCanaries("x", "c", 1)
	m := NewMatcher(canaries)
	value := canaries[0].Values[0]
	for _, start := range []int{0, 1, chunk - 70, chunk - 40, chunk - 33, chunk - 16, chunk - 15, chunk - 1, chunk, 2*chunk - 50, 3*chunk - len(value)} {
		b := noise(3 * chunk)
		copy(b[start:], value[:window])
		found, size, err := m.Read(iotest.HalfReader(bytes.NewReader(b)))
		if err != nil || len(found) != 1 || size != int64(len(b)) {
			t.Errorf("at %d: %v, %d bytes, %v", start, found, size, err)
		}
	}
}

func BenchmarkMatcher(b *testing.B) {
	m := NewMatcher(NewCanaries("x", "c", 200))
	text := noise(chunk)
	b.SetBytes(chunk)
	for b.Loop() {
		m.Find(text)
	}
}
