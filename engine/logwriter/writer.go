package logwriter

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Writer appends entries to a file and rotates it. It never fails: what can't
// be written, because the disk is full or the directory is gone, is dropped
// and counted, and the count is logged as an entry when writing works again.
//
// What others do to its file it sees before the next write: one that was
// removed or renamed is made anew, with its directory and the one above; one
// that was emptied is gone on with. What is no regular file is left alone, and
// lines are dropped until somebody moves it away. It is safe for concurrent use.
type Writer struct {
	path  string
	limit int64
	keep  int
	now   func() time.Time
	calls atomic.Int64 // to the disk that have ended, give or take

	mu      sync.Mutex
	file    *os.File
	size    int64
	older   int64 // bytes of the files that were rotated
	job     *job  // the compression that goes on; nil = none
	dropped int
	why     error             // the last lines were dropped
	retry   time.Time         // no attempt to open before
	buf     []byte            // a notice and what follows it
	stats   [2]syscall.Stat_t // of look and olderFile: as variables they would be garbage, with each write

	rotations int
	rotation  chan struct{} // tells of one
}

// smallestFile is the least limit that counts: a smaller file takes as much
// of a disk.
const smallestFile = 4 << 10

// NewWriter returns a Writer on path. A file is rotated before it grows beyond
// limit bytes, 4 KiB at least; keep files are kept, the current one included (at
// least 1). All of them together, and what a compression takes meanwhile, stay
// within limit x keep.
func NewWriter(path string, limit int64, keep int) *Writer {
	w := &Writer{path: path, limit: max(limit, smallestFile), keep: max(keep, 1), now: time.Now, rotation: make(chan struct{}, 1)}
	w.mu.Lock()
	defer w.mu.Unlock()
	_ = os.Remove(temporary(path)) // of a writer that was killed
	w.prune()
	w.why = w.open() // tried again with the first entry
	return w
}

// Close tells of what was dropped last, if it can, and closes the file.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dropped > 0 {
		w.append(nil)
	}
	return w.close()
}

func (w *Writer) close() error {
	if w.file == nil {
		return nil
	}
	f := w.file
	w.file = nil
	return f.Close()
}

// longest is how much text an entry of this log can have.
func (w *Writer) longest() int { return int(min(MaxText, w.limit-entryRoom)) }

// Write appends whole entries, with one system call where no rotation comes in
// between.
func (w *Writer) Write(entries []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.append(entries)
}

// lose counts lines that were dropped before what is written next.
func (w *Writer) lose(n int, why error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dropped, w.why = w.dropped+n, why
}

func (w *Writer) append(entries []byte) {
	all := entries
	if w.dropped > 0 {
		w.buf = AppendLine(w.buf[:0], Line{At: w.now(), Stream: Stderr, Text: droppedText(w.dropped, w.why)})
		w.buf = append(w.buf, entries...)
		all = w.buf
	}
	rest, err := w.put(all)
	if len(rest) < len(all) {
		w.dropped = 0
	}
	if len(rest) > len(entries) {
		rest = entries // the notice isn't one of the program's lines
	}
	if err != nil {
		w.dropped, w.why = w.dropped+count(rest), err
		return
	}
	w.buf = nil // rarely needed
}

func droppedText(n int, why error) []byte {
	return fmt.Appendf(nil, "dunnage: %d lines dropped: the log could not be written: %v", n, why)
}

// ParseDropped reads how many lines a notice of the writer says are missing, and
// why; not ok means that the text is none.
func ParseDropped(text []byte) (n int, why string, ok bool) {
	head, why, ok := strings.Cut(string(text), " lines dropped: the log could not be written: ")
	digits, ours := strings.CutPrefix(head, "dunnage: ")
	n, err := strconv.Atoi(digits)
	return n, why, ok && ours && err == nil
}

// count counts lines, not parts of them.
func count(entries []byte) (n int) {
	for entry := range bytes.Lines(entries) {
		if EndsLine(entry) {
			n++
		}
	}
	return n
}

// put writes entries into the file, and into the next where they don't fit. On
// an error, rest is what was not written: whole entries.
func (w *Writer) put(entries []byte) (rest []byte, err error) {
	if err := w.look(); err != nil {
		return entries, err
	}
	for len(entries) > 0 {
		n := w.fitting(entries)
		if n == 0 {
			if err := w.rotate(); err != nil {
				return entries, err
			}
			continue
		}
		if w.job != nil && w.size+int64(n)+w.older+w.job.room > w.bound() {
			w.job.drop()
			w.job = nil
		}
		n, err := w.file.Write(entries[:n])
		w.calls.Add(1)
		w.size += int64(n)
		if err != nil {
			return w.undo(entries, n), err
		}
		entries = entries[n:]
	}
	return nil, nil
}

func (w *Writer) bound() int64 { return w.limit * int64(w.keep) }

// fitting is how many bytes of whole entries the file can take; 0 = it is full.
func (w *Writer) fitting(entries []byte) int {
	room := w.limit - w.size
	if int64(len(entries)) <= room {
		return len(entries)
	}
	if room > 0 {
		if n := bytes.LastIndexByte(entries[:room], '\n') + 1; n > 0 {
			return n
		}
	}
	if w.size > 0 {
		return 0
	}
	return bytes.IndexByte(entries, '\n') + 1
}

// undo cuts off the part of an entry that a full disk took before it was full:
// the next entry would be glued to it. It returns what isn't in the file.
func (w *Writer) undo(entries []byte, written int) []byte {
	whole := bytes.LastIndexByte(entries[:written], '\n') + 1
	if whole < written {
		end := w.size - int64(written-whole)
		if w.file.Truncate(end) != nil {
			_ = w.close() // open ends the line
		}
		w.size = end
	}
	return entries[whole:]
}

// look makes sure that the file is the one that readers find.
func (w *Writer) look() error {
	if w.file != nil {
		now, was := &w.stats[0], &w.stats[1]
		err := syscall.Fstat(int(w.file.Fd()), was)
		if err == nil {
			err = syscall.Lstat(w.path, now)
		}
		if err == nil && now.Ino == was.Ino && now.Dev == was.Dev {
			w.size = now.Size // less, if somebody emptied it
			return nil
		}
		_ = w.close() // nobody can read it
		w.prune()
	}
	return w.open()
}

// retryOpen spares a broken directory from an attempt for every line.
const retryOpen = time.Second

func (w *Writer) open() error {
	if now := w.now(); now.Before(w.retry) {
		return w.why
	} else {
		w.retry = now.Add(retryOpen)
	}
	f, size, err := openRegular(w.path, os.O_RDWR|os.O_CREATE|os.O_APPEND)
	if errors.Is(err, fs.ErrNotExist) {
		w.makeDirectory()
		f, size, err = openRegular(w.path, os.O_RDWR|os.O_CREATE|os.O_APPEND)
	}
	if err != nil {
		return sayNoInode(err, w.path)
	}
	if size, err = finishLine(f, size); err != nil {
		return errors.Join(err, f.Close())
	}
	w.file, w.size, w.retry = f, size, time.Time{}
	return nil
}

// sayNoInode says so where a file can't be made for want of an inode: the kernel's
// word for it is the one for want of space.
func sayNoInode(err error, path string) error {
	var st syscall.Statfs_t
	if !errors.Is(err, syscall.ENOSPC) || syscall.Statfs(filepath.Dir(path), &st) != nil || st.Files == 0 || st.Ffree > 0 {
		return err
	}
	return fmt.Errorf("%w: none of the %d inodes of its file system is free: it has too many files, not too much data", err, st.Files)
}

// openRegular opens a file, and nothing that somebody has put in its place: to
// open a FIFO would take until somebody reads it, a device may do anything, and a
// symbolic link leads to a file that isn't the log's.
func openRegular(path string, flags int) (f *os.File, size int64, err error) {
	strange := fmt.Errorf("%s is no regular file: move it away", path)
	if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() {
		return nil, 0, strange
	}
	f, err = os.OpenFile(path, flags|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0o640) // it may be another by now
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = strange
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}

// makeDirectory makes the directories of service and project, but no higher one:
// without that, the file system that the logs belong on may not be there. The
// agent, which knows, makes it.
func (w *Writer) makeDirectory() {
	dir := filepath.Dir(w.path)
	_ = os.Mkdir(filepath.Dir(dir), 0o711)
	_ = os.Mkdir(dir, 0o711) // open says what is wrong
}

// finishLine ends a line that an earlier writer, killed in a write, left open.
// It returns the file's size.
func finishLine(f *os.File, size int64) (int64, error) {
	if size == 0 {
		return 0, nil
	}
	last := make([]byte, 1)
	if _, err := f.ReadAt(last, size-1); err != nil || last[0] == '\n' {
		return size, err
	}
	n, err := f.Write([]byte{'\n'})
	return size + int64(n), err
}
