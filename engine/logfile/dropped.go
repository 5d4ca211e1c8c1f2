package logfile

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"time"

	"dunnage/engine/logwriter"
)

// droppedWithin is how much of a log's end is searched for what the writer dropped:
// who asks does so for fifty replicas and wants to know at once.
const droppedWithin = 256 << 10

// Drops is what a writer says that it couldn't write.
type Drops struct {
	Lines int
	Last  time.Time // when the last of them was told of
	Why   string    // of the last, one line

	Emptied string // why the present file was emptied rather than rotated; empty = it wasn't
}

// Dropped adds up what the ends of the present file and of the one before it tell of
// lines that were dropped since a time. What isn't there, is compressed or can't be read
// as a log tells of none.
func Dropped(path string, since time.Time) (d Drops, err error) {
	for _, path := range []string{logwriter.Rotated(path, 1), path} {
		err = errors.Join(err, d.add(path, since))
	}
	return d, err
}

func (d *Drops) add(path string, since time.Time) error {
	p, err := openForm(path, false)
	if errors.Is(err, fs.ErrNotExist) || err == nil && p.file == nil {
		return nil
	}
	if err != nil {
		return err
	}
	end := make([]byte, min(p.info.Size(), droppedWithin))
	d.Emptied = emptied(p.file, since)
	n, err := p.file.ReadAt(end, p.info.Size()-int64(len(end)))
	if errors.Is(err, io.EOF) { // emptied meanwhile
		err = nil
	}
	for entry := range bytes.Lines(end[:n]) {
		l, ok := parseLine(bytes.TrimSuffix(entry, []byte{'\n'}))
		if !ok || l.Stream != Stderr || l.At.Before(since) {
			continue
		}
		if lines, why, ok := logwriter.ParseDropped(l.Text); ok {
			d.Lines, d.Last, d.Why = d.Lines+lines, l.At, why
		}
	}
	return errors.Join(err, p.close())
}

// emptied reads the writer's notice, which is the first line of a file if any.
func emptied(f io.ReaderAt, since time.Time) string {
	head := make([]byte, 16<<10)
	n, _ := f.ReadAt(head, 0) // whether it can be read is asked elsewhere
	first, _, _ := bytes.Cut(head[:n], []byte{'\n'})
	l, ok := parseLine(first)
	if !ok || l.Stream != Stderr || l.At.Before(since) {
		return ""
	}
	why, ok := logwriter.ParseEmptied(l.Text)
	if !ok { // a line of the program's own
		return ""
	}
	return why
}
