package logfile

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"slices"
	"syscall"
)

// openTries is how often the files of a log are opened anew because it was
// rotated meanwhile.
const openTries = 20

// openAll opens the files of a log, the oldest first. None is an empty log.
func openAll(path string) ([]*piece, error) {
	for try := 1; ; try++ {
		pieces, settled, err := openOnce(path)
		if err != nil || settled || try == openTries {
			return pieces, err
		}
		if err := closeAll(pieces); err != nil {
			return nil, err
		}
	}
}

// openOnce opens what there is, from the newest to the oldest: whatever is
// rotated meanwhile gets a higher number, and so is seen twice, not missed. It
// is kept once. Not settled means that something changed all the same.
func openOnce(path string) (pieces []*piece, settled bool, err error) {
	defer func() {
		slices.Reverse(pieces)
		if err != nil {
			err = errors.Join(err, closeAll(pieces))
		}
	}()
	numbers, err := olderNumbers(path)
	if err != nil {
		return nil, false, err
	}
	settled = true
	for _, n := range append([]int{0}, numbers...) {
		p, err := openPiece(path, n)
		if errors.Is(err, fs.ErrNotExist) {
			settled = settled && n == 0 && len(numbers) == 0
			continue
		}
		if err != nil {
			return pieces, false, err
		}
		if slices.ContainsFunc(pieces, p.same) {
			settled = false
			if err := p.close(); err != nil {
				return pieces, false, err
			}
			continue
		}
		pieces = append(pieces, p)
	}
	if err := date(pieces); err != nil {
		return pieces, false, err
	}
	after, err := olderNumbers(path)
	if err != nil {
		return pieces, false, err
	}
	return pieces, settled && slices.Equal(numbers, after) && (len(pieces) == 0 || pieces[0].isAt(path)), nil
}

// olderNumbers lists the numbers of a log's older files. Where the directory
// isn't there, neither are they.
func olderNumbers(path string) ([]int, error) {
	found, err := listOlder(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return slices.Sorted(maps.Keys(found)), err
}

// openPiece opens a file by its number, in the form that it has now.
func openPiece(path string, n int) (*piece, error) {
	p, err := openForm(Rotated(path, n), false)
	if n == 0 || err == nil && p.file != nil || err != nil && !errors.Is(err, fs.ErrNotExist) {
		return p, err
	}
	zipped, zipErr := openForm(Compressed(path, n), true)
	if err == nil && (zipErr != nil || zipped.file == nil) { // neither can be read
		return p, nil
	}
	return zipped, zipErr
}

// openForm opens a file, or makes a line that stands for one that is no file to
// be read: a directory, a FIFO, which to open would take for ever, or a symbolic
// link, since the writer follows none.
func openForm(path string, zip bool) (*piece, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return leftOut(info), nil
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0) // it may be another by now
	if err != nil {
		return nil, err
	}
	if info, err = f.Stat(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if !info.Mode().IsRegular() {
		return leftOut(info), f.Close()
	}
	return &piece{file: f, info: info, zip: zip}, nil
}

func leftOut(info fs.FileInfo) *piece {
	return newNote(info, info.Name()+" is no regular file: left out")
}

// date gives the lines that stand for files, of pieces with the newest first, the
// time of what comes next, so that they come out before it.
func date(pieces []*piece) error {
	for i := 1; i < len(pieces); i++ {
		if pieces[i].file != nil {
			continue
		}
		if err := pieces[i-1].load(); err != nil {
			return err
		}
		pieces[i].first = pieces[i-1].first
	}
	return nil
}

func closeAll(pieces []*piece) error {
	var errs []error
	for _, p := range pieces {
		errs = append(errs, p.close())
	}
	return errors.Join(errs...)
}
