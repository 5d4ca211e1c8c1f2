package logwriter

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"syscall"
)

// rotate makes the file the first of the older ones and begins an empty one. A
// reader finds the files again by their inodes. A log that can't be rotated is
// emptied: of two evils, old lines are lost and not new ones.
func (w *Writer) rotate() error {
	if w.keep == 1 {
		return w.empty()
	}
	if err := w.shift(); err != nil {
		if err := w.empty(); err != nil {
			return err
		}
		n, _ := w.file.Write(AppendLine(nil, Line{At: w.now(), Stream: Stderr, Text: fmt.Appendf(nil, "dunnage: the log was emptied, because it could not be rotated: %v", err)}))
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

func (w *Writer) empty() error {
	err := w.file.Truncate(0)
	if err == nil {
		w.size = 0
	}
	return err
}

// shift counts the older files up by one, as far as there is no number without
// a file, and makes the present one the first. The oldest goes.
func (w *Writer) shift() error {
	free := 1
	last := w.olderFile(free)
	for last != (Older{}) && free < w.keep-1 {
		free++
		last = w.olderFile(free)
	}
	if err := w.remove(last); err != nil {
		return err
	}
	w.older -= last.size()
	for i := free; i > 1; i-- {
		w.calls.Add(1)
		err := rename(Compressed(w.path, i-1), Compressed(w.path, i))
		if err == nil {
			err = rename(Rotated(w.path, i-1), Rotated(w.path, i))
		}
		if err != nil {
			return err
		}
		if w.job != nil && w.job.number == i-1 {
			w.job.number = i
		}
	}
	if err := rename(w.path, Rotated(w.path, 1)); err != nil {
		return err
	}
	w.older += w.size
	return nil
}

// olderFile is ListOlder of one number. At a flood there are hundreds of
// rotations a second, so it leaves little garbage.
func (w *Writer) olderFile(n int) (f Older) {
	s := &w.stats[0]
	if syscall.Stat(Rotated(w.path, n), s) == nil {
		f.Number, f.Plain = n, sizeOf(s)
	}
	if syscall.Stat(Compressed(w.path, n), s) == nil {
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
	for _, path := range []string{Rotated(w.path, f.Number), Compressed(w.path, f.Number)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
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
	for ; last >= w.keep || w.older > w.limit*int64(w.keep-1) && last > 0; last-- {
		if f, ok := files[last]; ok && w.remove(f) == nil {
			w.older -= f.size()
		}
	}
}
