package logfile

import (
	"bytes"
	"errors"
	"io"
	"os"
)

// openAll opens the files of path, the oldest first. A rotation in between can
// show one file twice; it is kept once.
func openAll(path string) ([]*os.File, error) {
	var files []*os.File
	for i := 0; ; i++ {
		f, err := os.Open(Rotated(path, i))
		if errors.Is(err, os.ErrNotExist) {
			if i == 0 { // in the middle of a rotation there is no path for a moment
				continue
			}
			break
		}
		if err != nil {
			return nil, errors.Join(err, closeAll(files))
		}
		if len(files) > 0 && same(files[0], f) {
			if err := f.Close(); err != nil {
				return nil, errors.Join(err, closeAll(files))
			}
			continue
		}
		files = append([]*os.File{f}, files...)
	}
	return files, nil
}

func closeAll(files []*os.File) error {
	var errs []error
	for _, f := range files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

func same(a, b *os.File) bool {
	ai, err := a.Stat()
	if err != nil {
		return false
	}
	bi, err := b.Stat()
	return err == nil && os.SameFile(ai, bi)
}

// tailBlock is how much of a file is read at once, backwards.
const tailBlock = 64 << 10

// tailOffset finds where the last n whole lines of a file begin, reading it
// backwards, and how many lines it has found. Offset 0 means that an earlier
// file may hold more of them, or the first parts of the first one.
func tailOffset(f *os.File, n int) (offset int64, found int, err error) {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, 0, err
	}
	var data []byte // from start to the end of the earliest entry not looked at
	for start := end; start > 0; {
		block := make([]byte, min(tailBlock, start), min(tailBlock, start)+int64(len(data)))
		start -= int64(len(block))
		if _, err := f.ReadAt(block, start); err != nil {
			return 0, 0, err
		}
		data = append(block, data...)
		for {
			i := bytes.LastIndexByte(data[:max(0, len(data)-1)], '\n')
			if i < 0 && start > 0 {
				break // the entry begins in an earlier block
			}
			if endsLine(data[i+1:]) {
				if found == n {
					return start + int64(len(data)), n, nil
				}
				found++
			}
			if data = data[:i+1]; i < 0 {
				break
			}
		}
	}
	return 0, found, nil
}

// endsLine reports whether an entry, with its "\n", is or completes a line.
func endsLine(entry []byte) bool {
	text, ended := bytes.CutSuffix(entry, []byte{'\n'})
	l, ok := parseLine(text)
	return ended && (!ok || !l.Partial)
}
