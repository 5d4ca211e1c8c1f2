package store

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"math"

	"go.etcd.io/bbolt"
)

// What bbolt's pages look like (its internal/common, format version 2, in the
// byte order of the machine): a header of an 8-byte number, 2 bytes of type,
// 2 of element count and 4 of overflow, the pages that follow and belong to
// it; then the elements of 16 bytes, and the keys and values they point at,
// counted from the element's own start.
const (
	headerSize  = 16
	elementSize = 16

	branchPage   = 0x01
	leafPage     = 0x02
	freelistPage = 0x10

	bucketElement = 1 // the flag of a leaf's element whose value is a bucket
	bucketHeader  = 16

	metaFreelist = headerSize + 32 // where a meta page names the freelist's page
	metaSum      = headerSize + 56 // and where its checksum is, FNV-1a of all before it but the header
	noFreelist   = math.MaxUint64
)

var order = binary.NativeEndian

// checker reads every page that a transaction can reach. bbolt trusts what it
// reads: a damaged page makes it panic in a goroutine that nobody can recover
// from, follow a circle until the stack ends, or read outside its memory.
type checker struct {
	file     io.ReaderAt
	pageSize uint64
	end      uint64          // the first page that doesn't exist
	seen     map[uint64]bool // pages that something points at
}

// checkPages refuses a file with a damaged page that tx can reach. Values are
// left to who reads them.
func checkPages(tx *bbolt.Tx, file io.ReaderAt) error {
	pageSize := uint64(tx.DB().Info().PageSize)
	c := checker{file: file, pageSize: pageSize, end: uint64(tx.Size()) / pageSize, seen: map[uint64]bool{0: true, 1: true}}
	if err := c.tree(uint64(tx.Cursor().Bucket().Root()), nil, nil); err != nil {
		return err
	}
	return c.freelist(uint64(tx.ID()) % 2) // transactions write the two meta pages in turn
}

// doubtOf looks whether both meta pages are what was written. Transactions write
// them in turn, and bbolt takes the one that is left without a word, which may be of
// the transaction before the last. The next transaction writes the damaged one anew.
func doubtOf(path string, file io.ReaderAt, pageSize int64) (string, error) {
	for id := range int64(2) {
		meta := make([]byte, metaSum+8)
		if _, err := file.ReadAt(meta, id*pageSize); err != nil {
			return "", fmt.Errorf("its page %d: %w", id, err)
		}
		sum := fnv.New64a()
		_, _ = sum.Write(meta[headerSize:metaSum])
		if order.Uint64(meta[metaSum:]) != sum.Sum64() {
			return fmt.Sprintf("page %d of the store %s is damaged, one of the two that in turn say what the last change was: the other one is used, "+
				"so the last change that was taken may be missing (if the power was cut while it was written, nobody was told that it was taken); "+
				"`dunnage events` tells what was done last: compare `dunnage history`, `dunnage ps -a` and `dunnage secret ls` with it, and do again what isn't there; "+
				"the kernel's log may say why the disk damaged it; the next start of the agent ends this warning", id, path), nil
		}
	}
	return "", nil
}

// page reads the page id with what overflows it, and marks it as seen.
func (c *checker) page(id uint64) ([]byte, error) {
	if id >= c.end {
		return nil, fmt.Errorf("its page %d is pointed at and there are %d", id, c.end)
	}
	header := make([]byte, headerSize)
	if _, err := c.file.ReadAt(header, int64(id*c.pageSize)); err != nil {
		return nil, fmt.Errorf("its page %d: %w", id, err)
	}
	pages := 1 + uint64(order.Uint32(header[12:]))
	if order.Uint64(header) != id || pages > c.end-id {
		return nil, damaged(id)
	}
	for i := id; i < id+pages; i++ {
		if c.seen[i] {
			return nil, fmt.Errorf("its page %d is pointed at twice", i)
		}
		c.seen[i] = true
	}
	p := make([]byte, pages*c.pageSize)
	if _, err := c.file.ReadAt(p, int64(id*c.pageSize)); err != nil {
		return nil, fmt.Errorf("its page %d: %w", id, err)
	}
	return p, nil
}

// tree checks the page id and what is below it. Its keys must rise from low
// on, if there is one, and stay below high.
func (c *checker) tree(id uint64, low, high []byte) error {
	p, err := c.page(id)
	if err != nil {
		return err
	}
	if order.Uint16(p[8:]) == leafPage {
		return c.leaf(id, p, low, high)
	}
	keys, ok := elements(p, branchPage)
	if !ok || len(keys) == 0 || !rising(keys, low, high) {
		return damaged(id)
	}
	for i, e := range keys {
		next := high
		if i+1 < len(keys) {
			next = keys[i+1].key
		}
		if err := c.tree(e.page, e.key, next); err != nil {
			return err
		}
	}
	return nil
}

// leaf checks the leaf p, on page id or within it, and the buckets in it.
func (c *checker) leaf(id uint64, p, low, high []byte) error {
	items, ok := elements(p, leafPage)
	if !ok || !rising(items, low, high) {
		return damaged(id)
	}
	for _, e := range items {
		if !e.bucket {
			continue
		}
		if len(e.value) < bucketHeader {
			return damaged(id)
		}
		root := order.Uint64(e.value)
		var err error
		if root == 0 { // small: its only page follows in the value
			err = c.leaf(id, e.value[bucketHeader:], nil, nil)
		} else {
			err = c.tree(root, nil, nil)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// freelist checks the list of free pages that the meta page names. This
// program writes none; `bbolt compact` does.
func (c *checker) freelist(meta uint64) error {
	var b [8]byte
	if _, err := c.file.ReadAt(b[:], int64(meta*c.pageSize+metaFreelist)); err != nil {
		return fmt.Errorf("its page %d: %w", meta, err)
	}
	id := order.Uint64(b[:])
	if id == noFreelist {
		return nil
	}
	p, err := c.page(id)
	if err != nil {
		return err
	}
	list, n := p[headerSize:], uint64(order.Uint16(p[10:]))
	if n == math.MaxUint16 { // more than fit the header: the first number says how many
		n, list = order.Uint64(list), list[8:]
	}
	if order.Uint16(p[8:]) != freelistPage || n > uint64(len(list)/8) {
		return damaged(id)
	}
	for i := range n {
		free := order.Uint64(list[8*i:])
		if free >= c.end || c.seen[free] {
			return damaged(id)
		}
		c.seen[free] = true
	}
	return nil
}

// element is one of a page: a branch's points at a page, a leaf's has a value.
type element struct {
	key, value []byte
	page       uint64
	bucket     bool
}

// elements reads those of p, if p is of that type and they are within it.
func elements(p []byte, kind uint16) ([]element, bool) {
	if len(p) < headerSize || order.Uint16(p[8:]) != kind {
		return nil, false
	}
	n := int(order.Uint16(p[10:]))
	if n > (len(p)-headerSize)/elementSize {
		return nil, false
	}
	out := make([]element, n)
	for i := range out {
		b := p[headerSize+i*elementSize:]
		var flags, pos, keySize, valueSize uint32
		if kind == branchPage {
			pos, keySize, out[i].page = order.Uint32(b), order.Uint32(b[4:]), order.Uint64(b[8:])
		} else {
			flags, pos, keySize, valueSize = order.Uint32(b), order.Uint32(b[4:]), order.Uint32(b[8:]), order.Uint32(b[12:])
		}
		key, end := uint64(pos)+uint64(keySize), uint64(pos)+uint64(keySize)+uint64(valueSize)
		if flags > bucketElement || keySize == 0 || end > uint64(len(b)) {
			return nil, false
		}
		out[i].key, out[i].value, out[i].bucket = b[pos:key], b[key:end], flags == bucketElement
	}
	return out, true
}

func rising(items []element, low, high []byte) bool {
	for i, e := range items {
		if i == 0 && bytes.Compare(e.key, low) < 0 || i > 0 && bytes.Compare(e.key, items[i-1].key) <= 0 {
			return false
		}
		if high != nil && bytes.Compare(e.key, high) >= 0 {
			return false
		}
	}
	return true
}

func damaged(page uint64) error { return fmt.Errorf("its page %d is damaged", page) }
