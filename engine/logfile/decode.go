package logfile

import (
	"bytes"
	"errors"
	"io"
	"math"
	"time"
)

// longestEntry is how much of an entry without an end is held. Ours are shorter;
// what is longer comes out in parts.
const longestEntry = 32 << 10

// grows is the end of a range whose file is still written.
const grows = math.MaxInt64

// decoder makes entries of a range of text. It goes on where more is written.
type decoder struct {
	from     io.ReaderAt
	at, end  int64 // what of the range was not read yet
	mem      []byte
	buf      []byte // a part of mem: read, but not decoded
	searched int    // bytes of buf without an end of line
	last     Line   // gives an entry that can't be read its time and stream
	rest     *Line  // the entry goes on whose first part came out already
}

// begin goes on in another range; before is the time of what has none there.
func (d *decoder) begin(from io.ReaderAt, at, end int64, before time.Time) {
	d.from, d.at, d.end, d.buf, d.searched, d.rest = from, at, end, d.buf[:0], 0, nil
	if d.last.At.IsZero() {
		d.last = Line{At: before, Stream: Stdout}
	}
	if d.mem == nil {
		d.mem = make([]byte, 2*longestEntry)
	}
}

// next returns the next entry, whose text is valid until the next call; not ok
// means that there is none yet.
func (d *decoder) next() (l Line, ok bool, err error) {
	for {
		if i := bytes.IndexByte(d.buf[d.searched:], '\n'); i >= 0 {
			i += d.searched
			entry := d.buf[:i]
			d.buf, d.searched = d.buf[i+1:], 0
			if l, ok := d.entry(entry, true); ok {
				return l, true, nil
			}
			continue
		}
		d.searched = len(d.buf)
		if len(d.buf) >= longestEntry {
			if l, ok := d.cut(false); ok {
				return l, true, nil
			}
			continue
		}
		n, err := d.fill()
		if err != nil || n == 0 {
			return l, false, err
		}
	}
}

// cut makes an entry of what there is, be it whole or not.
func (d *decoder) cut(whole bool) (l Line, ok bool) {
	entry := d.buf
	d.buf, d.searched = d.buf[:0], 0
	return d.entry(entry, whole)
}

// finish returns what has no end and will never have one: a crash cut it.
func (d *decoder) finish() (l Line, ok bool) {
	if len(d.buf) == 0 && d.rest == nil {
		return l, false
	}
	return d.cut(true)
}

// shorten forgets what was read behind the new end of the file.
func (d *decoder) shorten(size int64) {
	gone := int(min(d.at-size, int64(len(d.buf))))
	d.buf = d.buf[:len(d.buf)-gone]
	d.searched = min(d.searched, len(d.buf))
	d.at = size
}

func (d *decoder) fill() (int, error) {
	have := copy(d.mem, d.buf)
	room := d.mem[have:]
	if left := d.end - d.at; left < int64(len(room)) {
		room = room[:left]
	}
	if len(room) == 0 {
		return 0, nil
	}
	n, err := d.from.ReadAt(room, d.at)
	d.buf = d.mem[:have+n]
	d.at += int64(n)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// entry shows what can't be read as it is, rather than hiding it. Only zeros
// are: after a power cut, a file system shows them for what was not written.
func (d *decoder) entry(b []byte, whole bool) (l Line, ok bool) {
	if d.rest != nil {
		l = *d.rest
		l.Partial, l.Text = l.Partial || !whole, b
		if whole {
			d.rest = nil
		}
		return l, true
	}
	if len(b) > 0 && b[0] == 0 {
		if b = bytes.TrimLeft(b, "\x00"); len(b) == 0 {
			return l, false
		}
	}
	l, ok = parseLine(b)
	if !ok {
		l = Line{At: d.last.At, Stream: d.last.Stream, Text: b}
	}
	d.last = Line{At: l.At, Stream: l.Stream}
	if !whole {
		d.rest = &Line{At: l.At, Stream: l.Stream, Partial: l.Partial}
		l.Partial = true
	}
	return l, true
}
