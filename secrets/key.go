package secrets

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

const keySize = 32

// page is a piece of memory outside Go's heap: where the limits allow it is
// never swapped, it isn't in core files, and the garbage collector makes no
// copies of it.
type page []byte

func newPage(size int) (page, error) {
	p, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("memory for keys: %w", err)
	}
	_ = unix.Mlock(p) // an unprivileged agent may have no such memory left
	_ = unix.Madvise(p, unix.MADV_DONTDUMP)
	return p, nil
}

// free overwrites the page. Nobody may look at it afterwards.
func (p page) free() {
	clear(p)
	_ = unix.Munmap(p)
}

// key is an outer key or a data key.
type key struct{ page page }

func (k *key) bytes() []byte { return k.page[:keySize] }

// free is for keys that aren't used any more; nil is none.
func (k *key) free() {
	if k != nil {
		k.page.free()
	}
}

// newKey moves b into locked memory: b is overwritten.
func newKey(b []byte) (*key, error) {
	defer clear(b)
	if len(b) != keySize {
		return nil, fmt.Errorf("a key of %d bytes, not %d", len(b), keySize)
	}
	p, err := newPage(keySize)
	if err != nil {
		return nil, err
	}
	copy(p, b)
	return &key{p}, nil
}

func randomKey() (*key, error) {
	p, err := newPage(keySize)
	if err != nil {
		return nil, err
	}
	rand.Read(p) // never fails: it ends the program instead
	return &key{p}, nil
}

func freeAll(keys []*key) {
	for _, k := range keys {
		k.free()
	}
}

var errNoKey = errors.New("what is there isn't a key: 64 hex digits")

// hexKey is the key that 64 hex digits and a line end are.
func hexKey(text []byte) (*key, error) {
	text = bytes.TrimSpace(text)
	var b [keySize]byte
	if len(text) != 2*keySize {
		return nil, errNoKey
	}
	if _, err := hex.Decode(b[:], text); err != nil {
		clear(b[:])
		return nil, errNoKey // not err, which has a byte of it
	}
	return newKey(b[:])
}

// anyKeys reads keys as other programs give them out: 64 hex digits, or base64
// of 32 bytes, a line each; or 32 bytes and nothing else.
func anyKeys(text []byte) ([]*key, error) {
	if len(text) == keySize {
		k, err := newKey(slices.Clone(text))
		return []*key{k}, err
	}
	var keys []*key
	for line := range bytes.FieldsSeq(text) {
		k, err := textKey(line)
		if err != nil {
			freeAll(keys)
			return nil, err
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, errors.New("there is nothing")
	}
	return keys, nil
}

func textKey(line []byte) (*key, error) {
	if k, err := hexKey(line); err == nil {
		return k, nil
	}
	for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		b := make([]byte, enc.DecodedLen(len(line)))
		n, err := enc.Decode(b, line)
		if err == nil && n == keySize {
			defer clear(b)
			return newKey(b[:n])
		}
		clear(b)
	}
	return nil, errors.New("what is there isn't a key: 64 hex digits, base64 of 32 bytes, or 32 bytes")
}
