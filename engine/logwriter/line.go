package logwriter

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

// stamp is RFC 3339 with all nine digits: entries of a stream line up, and no
// parser has to do without a fraction.
const stamp = "2006-01-02T15:04:05.000000000Z07:00"

// entryRoom is more than an entry has beside its text.
const entryRoom = 64

// AppendLine writes the entry's form to b.
func AppendLine(b []byte, l Line) []byte {
	return appendText(appendHead(b, l.At, l.Stream), l.Text, l.Partial)
}

// appendHead writes what all entries of a stream begin with at a time.
func appendHead(b []byte, at time.Time, stream string) []byte {
	b = at.UTC().AppendFormat(b, stamp)
	b = append(b, ' ')
	return append(b, stream...)
}

func appendText(b, text []byte, partial bool) []byte {
	if partial {
		b = append(b, " P "...)
	} else {
		b = append(b, " F "...)
	}
	b = append(b, text...)
	return append(b, '\n')
}

// ParseLine reads an entry (without its "\n"). What is no entry, such as the
// rest of one that a crash cut, is not ok. The line's text is a part of b.
func ParseLine(b []byte) (l Line, ok bool) {
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
	return Line{At: at, Stream: string(stream), Partial: rest[0] == 'P', Text: rest[2:]}, true
}

// EndsLine reports whether an entry, with its "\n", is a whole line or completes
// one. What is no entry counts as a line.
func EndsLine(entry []byte) bool {
	text, ended := bytes.CutSuffix(entry, []byte{'\n'})
	l, ok := ParseLine(text)
	return ended && (!ok || !l.Partial)
}
