package logwriter

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"syscall"
)

// rotate makes the file the first of the older ones and begins an empty one. A
// reader finds the files again by their inodes. A log that can't be rotated is
// emptied: of two evils, old lines are lost and not new ones. Its first line says
// so.
func (w *Writer) rotate() error {
	if w.keep == 1 {
		return w.empty()
	}
	if err := w.shift(); err != nil {
		if err := w.empty(); err != nil {
			return err
		}
		n, _ := w.file.Write(AppendLine(nil, Line{At: w.now(), Stream: Stderr, Text: fmt.Append(nil, emptiedHead, err)}))
		w.size = int64(n)
		return nil
	}
	if err := w.close(); err != nil {
		return err
	}
	if w.older > w.limit*int64(w.keep-1) { // the limit is a smaller one than it was
		w.prune()
	}
	if w.rotations++; w.rotations%16 == 0 {
		// By itself the runtime waits for a megabyte of garbage, a third of
		// what the process takes. Only rotations leave any.
		runtime.GC()
	}
	select {
	case w.rotation <- struct{}{}:
	default: // it is told already
	}
	return w.open()
}

const emptiedHead = "dunnage: the log was emptied, because it could not be rotated: "

// ParseEmptied reads why a log was emptied from its first line; not ok means that
// the text says nothing of it.
func ParseEmptied(text []byte) (why string, ok bool) {
	return strings.CutPrefix(string(text), emptiedHead)
}

func (w *Writer) empty() error {
	err := w.file.Truncate(0)
	if err == nil {
		w.size = 0
	}
	return err
}

// shift makes the present file the first of the older ones, after the number is
// free.
func (w *Writer) shift() error {
	n, err := w.vacate(1, w.keep-1)
	if err != nil {
		return err
	}
	if err := rename(w.path, Rotated(w.path, n)); err != nil {
		return err
	}
	w.older += w.size
	return nil
}

// mostStuck is how many numbers in a row are passed over.
const mostStuck = 16

// vacate frees number n, or the next one that can be freed: what can't be moved or
// removed, such as a directory, keeps its number, and costs no log its place. At
// most kept files stand from there on, the one to come included: the oldest goes.
func (w *Writer) vacate(n, kept int) (free int, err error) {
	for end := n + mostStuck; n < end; n++ {
		f := w.olderFile(n)
		if f == (Older{}) {
			return n, nil
		}
		if err = w.clear(f, kept); err == nil {
			return n, nil
		}
	}
	return 0, err
}

// clear moves an older file on, or removes it where only one may be kept.
func (w *Writer) clear(f Older, kept int) error {
	if kept == 1 || f.size() == 0 {
		err := w.remove(f)
		if err == nil {
			w.older -= f.size()
		}
		return err
	}
	to, err := w.vacate(f.Number+1, kept-1)
	if err != nil {
		return err
	}
	w.calls.Add(1)
	zipErr := w.move(Compressed(w.path, f.Number), Compressed(w.path, to))
	err = w.move(Rotated(w.path, f.Number), Rotated(w.path, to))
	if w.job != nil && w.job.number == f.Number && err == nil {
		w.job.number = to
	}
	return errors.Join(zipErr, err)
}

// move renames a regular file, and removes what else has the name.
func (w *Writer) move(from, to string) error {
	s := &w.stats[0]
	if syscall.Lstat(from, s) == nil && s.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return os.Remove(from)
	}
	return rename(from, to)
}

// olderFile is ListOlder of one number. At a flood there are hundreds of
// rotations a second, so it leaves little garbage.
func (w *Writer) olderFile(n int) (f Older) {
	s := &w.stats[0]
	if syscall.Lstat(Rotated(w.path, n), s) == nil {
		f.Number, f.Plain = n, sizeOf(s)
	}
	if syscall.Lstat(Compressed(w.path, n), s) == nil {
		f.Number, f.Zip = n, sizeOf(s)
	}
	return f
}

func sizeOf(s *syscall.Stat_t) int64 {
	if s.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return 0
	}
	return s.Size
}

// rename renames what may not be there.
func rename(from, to string) error {
	if err := syscall.Rename(from, to); err != nil && err != syscall.ENOENT {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

// remove deletes both forms of an older file, or what has its name, and drops its
// compression.
func (w *Writer) remove(f Older) error {
	if f.Number == 0 {
		return nil
	}
	if w.job != nil && w.job.number == f.Number {
		w.job.drop()
		w.job = nil
	}
	var errs []error
	for _, path := range []string{Rotated(w.path, f.Number), Compressed(w.path, f.Number)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// prune counts what the older files take and deletes what is too much: by
// number and, where the limit is a smaller one than it was, by size. What can't
// be deleted is tried again at the next rotation.
func (w *Writer) prune() {
	files, err := ListOlder(w.path)
	if err != nil {
		return // the directory isn't there: open says so
	}
	w.older = 0
	last := 0
	for n, f := range files {
		if f.Zip > 0 && f.Plain > 0 { // a compression was done, but for this
			if os.Remove(Rotated(w.path, n)) == nil {
				f.Plain = 0
			}
		}
		files[n] = f
		w.older += f.size()
		last = max(last, n)
	}
	top := w.keep - 1 // the highest number that shift uses
	for n := 1; n <= top; n++ {
		if f, ok := files[n]; ok && f.size() == 0 && w.remove(f) != nil {
			top++
		}
	}
	for ; last > top || w.older > w.limit*int64(w.keep-1) && last > 0; last-- {
		if f, ok := files[last]; ok && w.remove(f) == nil {
			w.older -= f.size()
		}
	}
}
