package logfile

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"time"
)

// cursor reads the chosen entries of one replica in order, across its files
// and, later, across rotations.
type cursor struct {
	path         string
	since, until time.Time
	follow       bool
	pieces       []*piece // the one being read, then newer ones
	begun        bool     // the first of them
	decoder      decoder
	filter       filter
	ready        []Line // chosen, the next one first
	chosen       []Line // what holds them
	ended        bool   // nothing more will come
}

// newCursor stands before what a query asks for. A log that doesn't exist yet
// is empty.
func newCursor(ctx context.Context, path string, q Query) (*cursor, error) {
	pieces, err := openAll(path)
	if err != nil {
		return nil, err
	}
	c := &cursor{path: path, since: q.Since, until: q.Until, follow: q.Follow, pieces: pieces}
	c.filter = filter{since: q.Since, until: q.Until, grep: q.Grep}
	if err := c.tail(ctx, q.Tail); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

func (c *cursor) close() error { return closeAll(c.pieces) }

// tail goes to before the last n chosen lines (-1: to the first).
func (c *cursor) tail(ctx context.Context, n int) error {
	if len(c.pieces) == 0 {
		return nil
	}
	// What is written from now on is not of the past, whoever follows.
	last := c.pieces[len(c.pieces)-1]
	if err := last.narrow(c.since, c.until, nil); err != nil {
		return err
	}
	if c.follow {
		defer func() { last.to = grows }()
	}
	if n < 0 {
		return nil
	}
	if n == 0 {
		last.from = last.to
		return c.leaveOut(len(c.pieces) - 1)
	}
	return c.lastLines(ctx, n)
}

func (c *cursor) lastLines(ctx context.Context, n int) error {
	found := 0
	for i := len(c.pieces) - 1; i >= 0; i-- {
		p := c.pieces[i]
		if err := c.narrow(i); err != nil {
			return err
		}
		more, err := p.tail(ctx, c.filter, max(n-found, 1), i == len(c.pieces)-1)
		if err != nil {
			return err
		}
		if found += more; found < n || i == 0 {
			continue
		}
		if goesOn, err := c.goesOn(i); err != nil {
			return err
		} else if goesOn {
			continue
		}
		if found, err = c.count(ctx, i); err != nil {
			return err
		}
		if found >= n {
			c.filter.skip = found - n
			return c.leaveOut(i)
		}
	}
	found, err := c.count(ctx, 0)
	c.filter.skip = max(0, found-n)
	return err
}

func (c *cursor) narrow(i int) error {
	var newer *piece
	if i+1 < len(c.pieces) {
		newer = c.pieces[i+1]
	}
	return c.pieces[i].narrow(c.since, c.until, newer)
}

// leaveOut leaves the files before the i-th.
func (c *cursor) leaveOut(i int) error {
	err := closeAll(c.pieces[:i])
	c.pieces = c.pieces[i:]
	return err
}

// count counts the chosen lines from the i-th file on. Where lines that are
// searched go on from file to file, they are more or fewer than those of each.
func (c *cursor) count(ctx context.Context, i int) (int, error) {
	f := c.filter
	for ; i < len(c.pieces); i++ {
		p := c.pieces[i]
		if err := p.pass(ctx, &f, p.from, p.to); err != nil {
			return 0, err
		}
	}
	f.finish(nil)
	return f.whole, nil
}

// goesOn reports whether a line of the file before goes on in the i-th: where
// the writer rotated in the middle of a long one.
func (c *cursor) goesOn(i int) (bool, error) {
	if c.pieces[i].from > 0 {
		return false, nil
	}
	if err := c.narrow(i - 1); err != nil {
		return false, err
	}
	return c.pieces[i-1].open()
}

// next returns the next chosen entry, whose text is valid until the next call;
// not ok means that there is none yet.
func (c *cursor) next(ctx context.Context) (l Line, ok bool, err error) {
	for i := 1; len(c.ready) == 0; i++ {
		if i%checkEvery == 0 && ctx.Err() != nil {
			return l, false, ctx.Err()
		}
		l, ok, err := c.read()
		switch {
		case err != nil:
			return l, false, err
		case ok:
			c.chosen = c.filter.add(l, c.chosen[:0])
		case c.ended || c.follow:
			return l, false, nil
		default:
			c.ended = true
			c.chosen = c.filter.finish(c.chosen[:0])
		}
		c.ready = c.chosen
	}
	l, c.ready = c.ready[0], c.ready[1:]
	return l, true, nil
}

// read returns the next entry of the present file or of the next newer one.
func (c *cursor) read() (l Line, ok bool, err error) {
	for len(c.pieces) > 0 {
		p := c.pieces[0]
		if !c.begun {
			if err := c.begin(p); err != nil {
				return l, false, err
			}
		}
		if l, ok, err := c.decoder.next(); err != nil || ok {
			return l, ok, err
		}
		if len(c.pieces) == 1 {
			return l, false, nil
		}
		if l, ok := c.decoder.finish(); ok { // nothing will complete it
			return l, true, nil
		}
		if err := p.close(); err != nil {
			return l, false, err
		}
		c.pieces, c.begun = c.pieces[1:], false
	}
	return l, false, nil
}

func (c *cursor) begin(p *piece) error {
	if err := errors.Join(p.load(), c.narrow(0)); err != nil {
		return err
	}
	c.begun = true
	c.decoder.begin(p.content, p.from, p.to, p.since())
	return nil
}

// look finds out whether the log was rotated since, or has appeared. Called
// when there is no next entry; next then goes on in the newer files. The old
// file is still first, because something may have been written to it between
// its last reading and its rotation. Gone means that nobody can find the log
// any more.
func (c *cursor) look() (gone bool, err error) {
	if len(c.pieces) == 0 {
		pieces, err := openAll(c.path)
		c.add(pieces)
		return len(pieces) == 0, err
	}
	info, err := os.Lstat(c.path)
	if errors.Is(err, fs.ErrNotExist) { // in the middle of a rotation, or removed
		return true, nil
	}
	if err != nil {
		return false, err
	}
	current := c.pieces[len(c.pieces)-1]
	if current.is(info) {
		return false, c.lookTruncated(current, info.Size())
	}
	return false, c.addNewer(current)
}

// lookTruncated begins again where a single file was emptied instead of
// rotated. That it was is seen by the time that it begins with: one that a
// writer on a full disk has cut half an entry off goes on.
func (c *cursor) lookTruncated(p *piece, size int64) error {
	if p.file == nil || !c.begun || len(c.pieces) > 1 || size == c.decoder.at {
		return nil
	}
	_, first, ok, err := p.content.point(0)
	if err != nil {
		return err
	}
	shorter := size < c.decoder.at
	switch emptied := !p.first.IsZero() && (!ok || !first.Equal(p.first)); {
	case emptied || shorter && p.first.IsZero():
		c.decoder.begin(p.content, 0, grows, p.since())
	case shorter:
		c.decoder.shorten(size)
	}
	if p.first = first; !ok {
		p.first = time.Time{}
	}
	return nil
}

func (c *cursor) addNewer(current *piece) error {
	pieces, err := openAll(c.path)
	if err != nil {
		return err
	}
	if current.file != nil {
		if current.info, err = current.file.Stat(); err != nil {
			return errors.Join(err, closeAll(pieces))
		}
	}
	known := slices.IndexFunc(pieces, current.same) + 1
	if known == 0 { // rotated away meanwhile: what is there is newer
		for known < len(pieces) && pieces[known].info.ModTime().Before(current.info.ModTime()) {
			known++
		}
		if known < len(pieces) && current.file != nil { // a note has told already
			c.add([]*piece{newNote(current.info, missing)})
		}
	}
	c.add(pieces[known:])
	return closeAll(pieces[:known])
}

// missing is said where the file that was read last isn't among those that are
// there: as many rotations came in between as files are kept, or more. Which it
// was no file tells, so it may be that nothing is missing.
const missing = "lines may be missing here: the log was rotated faster than it was read, or removed"

// add goes on in newer files, of which all is new.
func (c *cursor) add(pieces []*piece) {
	for _, p := range pieces {
		p.narrowed, p.from, p.to = true, 0, grows
	}
	c.pieces = append(c.pieces, pieces...)
}
