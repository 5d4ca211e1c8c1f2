package logwriter

import "io"

// Append writes entries at once.
func (w *Writer) Append(lines []Line) {
	var b []byte
	for _, l := range lines {
		b = AppendLine(b, l)
	}
	w.Write(b)
}

// Copy logs one stream.
func Copy(w *Writer, stream string, r io.Reader) error {
	return Run(w, map[string]io.Reader{stream: r}, Options{})
}
