package leak

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/url"
	"slices"
	"strings"
)

// window is how many bytes in a row of a form count as a leak.
const window = 16

// block is what is looked up: among 16 bytes in a row there are always 8 that
// begin at a multiple of 8.
const block = 8

// A Match is what was found of a canary.
type Match struct {
	Canary int // index
	Form   string
}

// Matcher finds any 16 bytes in a row of any form of the canaries' values. It
// looks at every eighth position only, and there at a bit of a table that fits
// into the processor's cache, so that it reads as fast as a disk gives.
type Matcher struct {
	forms  []form
	blocks map[uint64][]at
	filter []uint64 // a bit for each block's hash
}

// form is one way to write a value.
type form struct {
	canary int
	name   string
	text   []byte
}

// at is where a block stands.
type at struct{ form, offset int32 }

const filterBits = 24

func hash(b uint64) uint64 { return b * 0x9e3779b97f4a7c15 >> (64 - filterBits) }

// NewMatcher knows all versions of the canaries' values.
func NewMatcher(canaries []Canary) *Matcher {
	m := &Matcher{blocks: map[uint64][]at{}, filter: make([]uint64, 1<<filterBits/64)}
	for i, c := range canaries {
		for _, v := range c.Values {
			for _, f := range formsOf(v) {
				f.canary = i
				m.add(f)
			}
		}
	}
	return m
}

func (m *Matcher) add(f form) {
	m.forms = append(m.forms, f)
	for o := 0; o+block <= len(f.text); o++ {
		b := binary.LittleEndian.Uint64(f.text[o:])
		m.blocks[b] = append(m.blocks[b], at{int32(len(m.forms) - 1), int32(o)})
		h := hash(b)
		m.filter[h/64] |= 1 << (h % 64)
	}
}

// formsOf writes a value in each way that is looked for. The first that has the
// matching bytes gives its name to a match.
func formsOf(value string) []form {
	raw := []byte(value)
	all := []form{{name: "raw", text: raw}}
	seen := map[string]bool{value: true}
	add := func(name, text string) {
		if !seen[text] {
			seen[text] = true
			all = append(all, form{name: name, text: []byte(text)})
		}
	}
	for shift := range 3 {
		for _, e := range []struct {
			name string
			enc  *base64.Encoding
		}{{"base64", base64.RawStdEncoding}, {"base64url", base64.RawURLEncoding}} {
			text := e.enc.EncodeToString(append(make([]byte, shift), raw...))
			// The first and last characters hang on what stands around the value.
			text = text[(shift*8+5)/6:]
			if (shift+len(raw))%3 != 0 {
				text = text[:len(text)-1]
			}
			add(e.name, text)
		}
	}
	add("hex", hex.EncodeToString(raw))
	add("hex", strings.ToUpper(hex.EncodeToString(raw)))
	for _, escaped := range []string{url.QueryEscape(value), url.PathEscape(value)} {
		add("url", escaped)
		add("url", lowerEscapes(escaped))
	}
	add("url", percentAll(raw))
	for _, html := range []bool{false, true} {
		once := jsonText(value, html)
		add("json", once)
		add("json", jsonText(once, html)) // JSON within JSON
	}
	add("json", strings.ReplaceAll(jsonText(value, false), "/", `\/`))
	reversed := slices.Clone(raw)
	slices.Reverse(reversed)
	add("reversed", string(reversed))
	return all
}

func jsonText(s string, html bool) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(html)
	if err := e.Encode(s); err != nil { // a string can be encoded
		panic(err)
	}
	return strings.TrimSuffix(strings.TrimPrefix(b.String(), `"`), "\"\n")
}

// lowerEscapes writes %2F as %2f.
func lowerEscapes(s string) string {
	b := []byte(s)
	for i := range b {
		if b[i] == '%' && i+2 < len(b) {
			copy(b[i:i+3], bytes.ToLower(b[i:i+3]))
		}
	}
	return string(b)
}

// percentAll escapes every byte.
func percentAll(raw []byte) string {
	var b strings.Builder
	for _, c := range raw {
		b.WriteString("%" + strings.ToUpper(hex.EncodeToString([]byte{c})))
	}
	return b.String()
}

// Find reports what of the canaries is in b, each canary once.
func (m *Matcher) Find(b []byte) []Match {
	var found []Match
	for i := 0; i+block <= len(b); i += block {
		v := binary.LittleEndian.Uint64(b[i:])
		if h := hash(v); m.filter[h/64]&(1<<(h%64)) == 0 {
			continue
		}
		for _, a := range m.blocks[v] {
			f := m.forms[a.form]
			if m.long(b, i, f.text, int(a.offset)) && !slices.ContainsFunc(found, func(x Match) bool { return x.Canary == f.canary }) {
				found = append(found, Match{f.canary, f.name})
			}
		}
	}
	return found
}

// long reports whether the bytes around b[i:] and text[o:], which share a block,
// are equal for a window's length.
func (m *Matcher) long(b []byte, i int, text []byte, o int) bool {
	n := block
	for k := 1; k <= window && i-k >= 0 && o-k >= 0 && b[i-k] == text[o-k]; k++ {
		n++
	}
	for k := block; k < block+window && i+k < len(b) && o+k < len(text) && b[i+k] == text[o+k]; k++ {
		n++
	}
	return n >= window
}

// chunk is how much is read at a time.
const chunk = 1 << 20

// Read looks through all of r, and says how long it is.
func (m *Matcher) Read(r io.Reader) (found []Match, size int64, err error) {
	buf := make([]byte, chunk)
	kept := 0 // of the chunk before: what may be a match's beginning
	for {
		n, err := io.ReadFull(r, buf[kept:])
		size += int64(n)
		for _, f := range m.Find(buf[:kept+n]) {
			if !slices.ContainsFunc(found, func(x Match) bool { return x.Canary == f.Canary }) {
				found = append(found, f)
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return found, size, nil
		}
		if err != nil {
			return found, size, err
		}
		kept = copy(buf, buf[len(buf)-2*window:])
	}
}
