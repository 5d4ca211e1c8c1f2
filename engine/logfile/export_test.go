package logfile

import (
	"io"

	"dunnage/engine/logwriter"
)

// Writer writes logs for tests.
type Writer struct{ *logwriter.Writer }

func NewWriter(path string, limit int64, keep int) *Writer {
	return &Writer{logwriter.NewWriter(path, limit, keep)}
}

// Append writes entries at once.
func (w *Writer) Append(lines []Line) {
	var b []byte
	for _, l := range lines {
		b = appendLine(b, l)
	}
	w.Write(b)
}

// Copy logs one stream.
func Copy(w *Writer, stream string, r io.Reader) error {
	return logwriter.Run(w.Writer, map[string]io.Reader{stream: r}, logwriter.Options{})
}

var appendLine = logwriter.AppendLine
