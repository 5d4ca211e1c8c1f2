package logfile

import (
	"bytes"
	"regexp"
	"time"
)

// longestMatch is how much of a line is searched: its parts are held until it
// is known whether it matches.
const longestMatch = 1 << 20

// filter chooses lines. The parts of one go through it as they come, unless it
// has to look into them: then they come together.
type filter struct {
	since, until time.Time // zero = open
	grep         *regexp.Regexp
	skip         int // chosen lines that are left out, before all others
	whole        int // chosen lines that have ended, the left out ones included
	lines        [3]openLine
	joined       []byte
}

// openLine is a line of one stream whose last part hasn't come.
type openLine struct {
	decided, chosen, left bool
	parts                 []Line // held, until it is decided
	size                  int
}

// add takes the next entry and appends to out what is to be shown.
func (f *filter) add(l Line, out []Line) []Line {
	o := f.lineOf(l.Stream)
	if !o.decided && len(o.parts) == 0 && !f.inTime(l.At) {
		o.decided = true
	}
	if !o.decided {
		out = f.decide(o, l, out)
	} else if o.chosen && !o.left {
		out = append(out, l)
	}
	if !l.Partial {
		f.end(o)
	}
	return out
}

// lineOf is the line that an entry of a stream belongs to. The name can be any
// in a damaged file.
func (f *filter) lineOf(stream string) *openLine {
	switch stream {
	case Stdout:
		return &f.lines[0]
	case Stderr:
		return &f.lines[1]
	}
	return &f.lines[2]
}

// inTime: a line is of the time of its first part.
func (f *filter) inTime(at time.Time) bool {
	return !at.Before(f.since) && (f.until.IsZero() || !at.After(f.until))
}

func (f *filter) decide(o *openLine, l Line, out []Line) []Line {
	if f.grep == nil {
		f.choose(o, true)
	} else if o.size += len(l.Text); l.Partial && o.size < longestMatch {
		l.Text = bytes.Clone(l.Text)
		o.parts = append(o.parts, l)
		return out
	} else {
		f.choose(o, f.matches(o.parts, l.Text))
	}
	if o.chosen && !o.left {
		out = append(append(out, o.parts...), l)
	}
	o.parts = nil
	return out
}

func (f *filter) choose(o *openLine, chosen bool) {
	o.decided, o.chosen = true, chosen
	if chosen && f.skip > 0 {
		f.skip--
		o.left = true
	}
}

func (f *filter) matches(parts []Line, last []byte) bool {
	if len(parts) == 0 {
		return f.grep.Match(last)
	}
	f.joined = f.joined[:0]
	for _, p := range parts {
		f.joined = append(f.joined, p.Text...)
	}
	f.joined = append(f.joined, last...)
	return f.grep.Match(f.joined)
}

func (f *filter) end(o *openLine) {
	if o.chosen {
		f.whole++
	}
	*o = openLine{}
}

// finish decides on lines that will never end.
func (f *filter) finish(out []Line) []Line {
	for i := range f.lines {
		o := &f.lines[i]
		if len(o.parts) > 0 {
			f.choose(o, f.matches(o.parts, nil))
			if o.chosen && !o.left {
				out = append(out, o.parts...)
			}
		}
		if o.decided {
			f.end(o)
		}
	}
	return out
}
