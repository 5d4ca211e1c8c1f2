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
}

// Dropped adds up what the end of the present file tells of lines that were dropped
// since a time. What isn't there or can't be read as a log tells of none.
func Dropped(path string, since time.Time) (d Drops, err error) {
	p, err := openForm(path, false)
	if errors.Is(err, fs.ErrNotExist) || err == nil && p.file == nil {
		return d, nil
	}
	if err != nil {
		return d, err
	}
	end := make([]byte, min(p.info.Size(), droppedWithin))
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
			d = Drops{Lines: d.Lines + lines, Last: l.At, Why: why}
		}
	}
	return d, errors.Join(err, p.close())
}
