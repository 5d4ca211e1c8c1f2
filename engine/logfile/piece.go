package logfile

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"
)

// piece is one file of a log, and what of it is read.
type piece struct {
	file     *os.File    // nil = a note
	info     fs.FileInfo // when it was opened, or looked at last
	zip      bool
	content  content   // nil until something is read
	first    time.Time // of the first entry; zero = not known
	narrowed bool
	from, to int64 // the range that is read
}

// newNote is a line that stands for what isn't read.
func newNote(info fs.FileInfo, text string) *piece {
	return &piece{info: info, content: note{strings.NewReader("dunnage: " + text + "\n")}}
}

func (p *piece) close() error {
	p.content = nil
	if p.file == nil {
		return nil
	}
	return p.file.Close()
}

// load makes the content readable.
func (p *piece) load() (err error) {
	if p.content != nil {
		return nil
	}
	if p.content, err = newContent(p.file, p.zip); err != nil {
		return err
	}
	_, first, ok, err := p.content.point(0)
	if ok {
		p.first = first
	}
	return err
}

// isAt reports whether path names the file.
func (p *piece) isAt(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && p.is(info)
}

// is reports whether info is of the file. What a note stands for isn't held
// open: a file that comes after it may have its inode.
func (p *piece) is(info fs.FileInfo) bool {
	return os.SameFile(info, p.info) && (p.file != nil || !info.Mode().IsRegular())
}

// same reports whether two files hold the same, because they are one, or one
// is the other compressed: the writer leaves that the time of its last write.
func (p *piece) same(other *piece) bool {
	if p.is(other.info) {
		return true
	}
	return p.zip != other.zip && p.info.ModTime().Equal(other.info.ModTime()) && p.identity() == other.identity()
}

// identity is what else compressing a file doesn't change. A file that can't be
// read is like no other.
func (p *piece) identity() any {
	if err := p.load(); err != nil {
		return p
	}
	_, first, _, err := p.content.point(0)
	if err != nil {
		return p
	}
	size, err := p.content.size()
	if err != nil {
		return p
	}
	return [2]int64{first.UnixNano(), size}
}

// narrow finds the range that holds everything of a time. What else it holds
// is for the filter. A clock that was set back puts entries out of order: these
// are found too, where they are more than what lies between two points and more
// than a 64th of the file.
//
// newer is the file that comes next, or nil: where it begins before since, what
// lies behind the last point does too, and isn't unpacked.
func (p *piece) narrow(since, until time.Time, newer *piece) error {
	if p.narrowed {
		return nil
	}
	if err := p.load(); err != nil {
		return err
	}
	size, err := p.content.size()
	if err != nil {
		return err
	}
	p.narrowed, p.from, p.to = true, 0, size
	if !since.IsZero() {
		p.from, err = p.lowerBound(since, size, newer)
	}
	if !until.IsZero() && err == nil {
		p.to, err = p.upperBound(until, size)
	}
	p.to = max(p.from, p.to)
	return err
}

// lowerBound is the last point before the first one at or after t.
func (p *piece) lowerBound(t time.Time, size int64, newer *piece) (int64, error) {
	n, err := p.content.points()
	if err != nil {
		return 0, err
	}
	i, err := firstPoint(n, func(i int) (bool, error) {
		_, at, ok, err := p.content.point(i)
		return !ok || !at.Before(t), err
	})
	if err == nil && i == n && newer != nil {
		if err := newer.load(); err != nil {
			return 0, err
		}
		if !newer.first.IsZero() && newer.first.Before(t) {
			return size, nil
		}
	}
	for i--; i > 0 && err == nil; i-- {
		position, _, ok, err := p.content.point(i)
		if err != nil || ok {
			return position, err
		}
	}
	return 0, err
}

// upperBound is the first point behind the last one at or before t, and size
// where there is none.
func (p *piece) upperBound(t time.Time, size int64) (int64, error) {
	n, err := p.content.points()
	if err != nil {
		return 0, err
	}
	i, err := firstPoint(n, func(i int) (bool, error) { // from the end
		_, at, ok, err := p.content.point(n - 1 - i)
		return !ok || !at.After(t), err
	})
	for i = n - i; i < n && err == nil; i++ {
		position, _, ok, err := p.content.point(i)
		if err != nil || ok {
			return position, err
		}
	}
	return size, err
}

// fanOut is how many points are looked at to choose between them.
const fanOut = 64

// firstPoint returns the first of n points that holds is true of, n where there
// is none. It expects them in order, but looks at several at a time, from the
// first on: where they aren't, it finds an early one.
func firstPoint(n int, holds func(int) (bool, error)) (int, error) {
	below, above := -1, n
	for above-below > 1 {
		step := max(1, (above-below)/fanOut)
		next := above
		for i := below + step; i < above; i += step {
			yes, err := holds(i)
			if err != nil {
				return 0, err
			}
			if yes {
				next = i
				break
			}
			below = i
		}
		above = next
	}
	return above, nil
}

// boundary is a place at or before position, not far from it, where no line
// goes on (of two streams that were written at once, the other may).
func (p *piece) boundary(position int64) (int64, error) {
	if !p.content.random() {
		return p.from, nil
	}
	for end := position; end > p.from; {
		start := max(p.from, end-2*longestEntry)
		buf := make([]byte, end-start)
		if n, err := p.content.ReadAt(buf, start); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		} else if int64(n) < end-start { // emptied meanwhile
			return p.from, nil
		}
		at := start
		if start > p.from { // the end of an entry that began before
			at += int64(bytes.IndexByte(buf, '\n') + 1)
		}
		for at < end {
			i := bytes.IndexByte(buf[at-start:], '\n') + 1
			if i == 0 {
				break
			}
			entry := buf[at-start:][:i]
			if at += int64(i); endsLine(entry) {
				return at, nil
			}
		}
		end = start
	}
	return p.from, nil
}

// How much more text is looked at, at first and at most, to find the last lines.
const (
	firstStep = 64 << 10
	lastStep  = 4 << 20
)

// tail leaves out what is before the last n chosen lines, as far as this file
// has them: found says how many it counted. Where it is at least n, the lines
// from there on are that many.
func (p *piece) tail(ctx context.Context, f filter, n int, last bool) (found int, err error) {
	step := int64(firstStep)
	for end := p.to; end > p.from && found < n; step = min(4*step, lastStep) {
		start, err := p.boundary(end - step)
		if err != nil {
			return found, err
		}
		one := f
		if err := p.pass(ctx, &one, start, end); err != nil {
			return found, err
		}
		if last && end == p.to { // what nothing completes is a line too
			one.finish(nil)
		}
		found, end = found+one.whole, start
		if found >= n {
			p.from = start
		}
	}
	return found, nil
}

// open reports whether the last line of the range goes on in the next file.
func (p *piece) open() (bool, error) {
	start, err := p.boundary(p.to)
	if err != nil {
		return false, err
	}
	d := p.decode(start, p.to)
	for partial := false; ; {
		l, ok, err := d.next()
		if err != nil || !ok {
			return partial, err
		}
		partial = l.Partial
	}
}

// decode reads a range of the file.
func (p *piece) decode(start, end int64) *decoder {
	d := &decoder{}
	d.begin(p.content, start, end, p.since())
	return d
}

// since is the time of what has none, at the beginning of the file.
func (p *piece) since() time.Time {
	if p.first.IsZero() {
		return p.info.ModTime()
	}
	return p.first
}

// pass lets a range go through a filter that counts.
func (p *piece) pass(ctx context.Context, f *filter, start, end int64) error {
	d := p.decode(start, end)
	var out []Line
	for i := 1; ; i++ {
		if i%checkEvery == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		l, ok, err := d.next()
		if err != nil || !ok {
			return err
		}
		out = f.add(l, out[:0])
	}
}

// checkEvery is after how many entries a reader looks whether it shall go on.
const checkEvery = 1000
