package logfile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"time"
)

// Writer appends entries to a file and rotates it. It never fails: what can't
// be written, because the disk is full or the directory is gone, is dropped
// and counted, and the count is logged as an entry when writing works again.
// It is safe for concurrent use.
type Writer struct {
	path  string
	limit int64
	keep  int
	now   func() time.Time

	mu      sync.Mutex
	file    *os.File
	size    int64
	dropped int
	retry   time.Time // no attempt to open before
	buf     []byte
}

// NewWriter returns a Writer on path. A file is rotated before it grows beyond
// limit bytes; keep files are kept, the current one included (at least 1).
func NewWriter(path string, limit int64, keep int) *Writer {
	w := &Writer{path: path, limit: limit, keep: max(keep, 1), now: time.Now}
	w.mu.Lock()
	defer w.mu.Unlock()
	_ = w.open() // tried again with the first entry
	return w
}

// Close closes the file. What was dropped and never told of is lost.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file == nil {
		return nil
	}
	f := w.file
	w.file = nil
	return f.Close()
}

// Append writes the entries with one write, so that a burst of lines costs one
// system call.
func (w *Writer) Append(lines []Line) {
	if len(lines) == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf = w.buf[:0]
	if w.dropped > 0 {
		w.buf = appendLine(w.buf, Line{At: lines[0].At, Stream: Stderr, Text: droppedText(w.dropped)})
	}
	for _, l := range lines {
		w.buf = appendLine(w.buf, l)
	}
	if err := w.write(); err != nil {
		w.dropped += count(lines)
		return
	}
	w.dropped = 0
}

func droppedText(n int) []byte {
	return fmt.Appendf(nil, "dunnage: %d lines dropped: the log could not be written", n)
}

// count counts lines, not parts of them.
func count(lines []Line) (n int) {
	for _, l := range lines {
		if !l.Partial {
			n++
		}
	}
	return n
}

// write puts buf into the file, whole or not at all.
func (w *Writer) write() error {
	if err := w.open(); err != nil {
		return err
	}
	if w.size > 0 && w.size+int64(len(w.buf)) > w.limit {
		if err := w.rotate(); err != nil {
			return err
		}
	}
	n, err := w.file.Write(w.buf)
	if err != nil {
		// Without this, the next entry would be glued to half of this one.
		if n > 0 && w.file.Truncate(w.size) != nil {
			w.size += int64(n)
		}
		return err
	}
	w.size += int64(n)
	return nil
}

// retryOpen spares a broken directory from an attempt for every line.
const retryOpen = time.Second

func (w *Writer) open() error {
	if w.file != nil {
		return nil
	}
	if w.now().Before(w.retry) {
		return os.ErrNotExist
	}
	w.retry = w.now().Add(retryOpen)
	f, err := os.OpenFile(w.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return err
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	w.file, w.size, w.retry = f, size, time.Time{}
	return w.finishLine()
}

// finishLine ends a line that an earlier writer, killed in a write, left open.
func (w *Writer) finishLine() error {
	if w.size == 0 {
		return nil
	}
	f, err := os.Open(w.path)
	if err != nil {
		return err
	}
	last := make([]byte, 1)
	_, err = f.ReadAt(last, w.size-1)
	if err = errors.Join(err, f.Close()); err != nil || last[0] == '\n' {
		return err
	}
	n, err := w.file.Write([]byte{'\n'})
	w.size += int64(n)
	return err
}

// rotate renames path.1 to path.2 and so on, the oldest away, path to path.1,
// and opens a new path. A reader finds the files by their inodes.
func (w *Writer) rotate() error {
	if w.keep == 1 {
		if err := w.file.Truncate(0); err != nil {
			return err
		}
		w.size = 0
		return nil
	}
	for i := w.keep - 1; i >= 1; i-- {
		if err := os.Rename(Rotated(w.path, i-1), Rotated(w.path, i)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	err := w.file.Close()
	w.file = nil
	return errors.Join(err, w.open())
}

// Rotated names the i-th older file of path; 0 is path itself.
func Rotated(path string, i int) string {
	if i == 0 {
		return path
	}
	return path + "." + strconv.Itoa(i)
}
