package logfile

import (
	"bytes"
	"errors"
	"io"
	"os"
)

// cursor reads the entries of one replica in order, across its files and,
// later, across rotations.
type cursor struct {
	path    string
	files   []*os.File // the one being read, then newer ones
	pending []byte     // read, but without its end yet
	last    Line       // gives an entry that can't be read its time and stream
}

// newCursor stands before the last tail whole lines (-1: before everything).
// A log that doesn't exist yet is empty.
func newCursor(path string, tail int) (*cursor, error) {
	files, err := openAll(path)
	if err != nil {
		return nil, err
	}
	c := &cursor{path: path, files: files}
	if tail < 0 {
		return c, nil
	}
	for i := len(files) - 1; i >= 0; i-- {
		var offset int64
		found := 0
		if tail == 0 && i == len(files)-1 { // nothing of the past, not even the rest of a long line
			offset, err = files[i].Seek(0, io.SeekEnd)
		} else {
			offset, found, err = tailOffset(files[i], tail)
		}
		if err == nil {
			_, err = files[i].Seek(offset, io.SeekStart)
		}
		if err != nil {
			return nil, errors.Join(err, c.close())
		}
		if tail -= found; tail <= 0 && offset > 0 {
			err := closeAll(files[:i])
			c.files = files[i:]
			return c, err
		}
	}
	return c, nil
}

func (c *cursor) close() error { return closeAll(c.files) }

// next returns the next entry; not ok means that there is none yet.
func (c *cursor) next() (l Line, ok bool, err error) {
	for {
		if i := bytes.IndexByte(c.pending, '\n'); i >= 0 {
			l = c.entry(c.pending[:i])
			c.pending = c.pending[i+1:]
			return l, true, nil
		}
		more, err := c.fill()
		if err != nil || !more {
			return l, false, err
		}
	}
}

// entry shows what can't be read as it is, rather than hiding it.
func (c *cursor) entry(b []byte) Line {
	l, ok := parseLine(b)
	if !ok {
		l = Line{At: c.last.At, Stream: c.last.Stream, Text: bytes.Clone(b)}
	}
	c.last = l
	return l
}

// fill reads on, in the present file or in the next newer one.
func (c *cursor) fill() (more bool, err error) {
	buf := make([]byte, readSize)
	for len(c.files) > 0 {
		n, err := c.files[0].Read(buf)
		if n > 0 {
			c.pending = append(c.pending, buf[:n]...)
			return true, nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return false, err
		}
		if len(c.files) == 1 {
			return false, nil
		}
		if err := c.files[0].Close(); err != nil {
			return false, err
		}
		c.files = c.files[1:]
		if len(c.pending) > 0 { // cut by a crash: nothing will complete it
			c.pending = append(c.pending, '\n')
			return true, nil
		}
	}
	return false, nil
}

// look finds out whether the log was rotated since, or has appeared. Called
// when there is no next entry; next then goes on in the newer files. The old
// file is still first, because something may have been written to it between
// its last reading and its rotation.
func (c *cursor) look() error {
	if len(c.files) == 0 {
		files, err := openAll(c.path)
		c.files = files
		return err
	}
	info, err := os.Stat(c.path)
	if errors.Is(err, os.ErrNotExist) { // in the middle of a rotation, or removed
		return nil
	}
	if err != nil {
		return err
	}
	current := c.files[len(c.files)-1]
	was, err := current.Stat()
	if err != nil {
		return err
	}
	if os.SameFile(info, was) {
		return c.lookTruncated(current, was.Size())
	}
	return c.addNewer(current)
}

// lookTruncated begins again where a single file was emptied instead of rotated.
func (c *cursor) lookTruncated(f *os.File, size int64) error {
	at, err := f.Seek(0, io.SeekCurrent)
	if err == nil && at > size {
		_, err = f.Seek(0, io.SeekStart)
	}
	return err
}

func (c *cursor) addNewer(current *os.File) error {
	files, err := openAll(c.path)
	if err != nil {
		return err
	}
	for i, f := range files {
		if same(f, current) {
			err := closeAll(files[:i+1])
			c.files = append(c.files, files[i+1:]...)
			return err
		}
	}
	c.files = append(c.files, files...) // rotated away meanwhile: the rest is all there is
	return nil
}
