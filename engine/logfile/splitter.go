package logfile

import (
	"bytes"
	"errors"
	"io"
	"time"
)

// readSize lets a burst of short lines be taken with one read and written with
// one write. It must be larger than MaxText.
const readSize = 64 << 10

// Copy reads a stream of a container to its end and appends its lines to w. It
// keeps reading whatever happens to the file: a full pipe would stop the
// container. The last line counts as whole even without an end.
func Copy(w *Writer, stream string, r io.Reader) error {
	buf := make([]byte, readSize)
	var lines []Line
	have := 0 // bytes of an unfinished line at the start of buf
	for {
		n, err := r.Read(buf[have:])
		var rest []byte
		lines, rest = split(lines[:0], stream, time.Now(), buf[:have+n])
		if err != nil && len(rest) > 0 {
			lines = append(lines, Line{At: time.Now(), Stream: stream, Text: rest})
		}
		w.Append(lines)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		have = copy(buf, rest) // the lines that referred to buf are written
	}
}

// split cuts data into entries that refer to it, and returns the unfinished
// line at its end, shorter than MaxText.
func split(lines []Line, stream string, at time.Time, data []byte) ([]Line, []byte) {
	for {
		i := bytes.IndexByte(data, '\n')
		part := i < 0 && len(data) >= MaxText || i > MaxText
		switch {
		case part:
			lines = append(lines, Line{At: at, Stream: stream, Partial: true, Text: data[:MaxText]})
			data = data[MaxText:]
		case i < 0:
			return lines, data
		default:
			lines = append(lines, Line{At: at, Stream: stream, Text: data[:i]})
			data = data[i+1:]
		}
	}
}
