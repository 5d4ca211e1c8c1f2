package logfile

import (
	"bytes"
	"time"
)

// MaxText is how much of a line stands in one entry; longer lines are parts.
// It is the size that containerd's own CRI plugin uses.
const MaxText = 16 << 10

// Streams of a container.
const (
	Stdout = "stdout"
	Stderr = "stderr"
)

// Line is one entry.
type Line struct {
	At      time.Time
	Stream  string
	Partial bool
	Text    []byte // without the line's end; any bytes but "\n"
}

// appendLine writes the entry's form to b.
func appendLine(b []byte, l Line) []byte {
	b = l.At.UTC().AppendFormat(b, time.RFC3339Nano)
	b = append(b, ' ')
	b = append(b, l.Stream...)
	if l.Partial {
		b = append(b, " P "...)
	} else {
		b = append(b, " F "...)
	}
	b = append(b, l.Text...)
	return append(b, '\n')
}

// parseLine reads an entry (without its "\n"). What is no entry, such as the
// rest of one that a crash cut, is not ok.
func parseLine(b []byte) (l Line, ok bool) {
	stamp, rest, ok := bytes.Cut(b, []byte{' '})
	if !ok {
		return l, false
	}
	stream, rest, ok := bytes.Cut(rest, []byte{' '})
	if !ok || len(rest) < 2 || rest[1] != ' ' {
		return l, false
	}
	at, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil {
		return l, false
	}
	return Line{At: at, Stream: string(stream), Partial: rest[0] == 'P', Text: bytes.Clone(rest[2:])}, true
}
