package logfile

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"sort"
	"strings"
	"time"
)

// content is the text of one file of a log, whatever form it has on disk.
// Positions count bytes of text.
type content interface {
	io.ReaderAt
	size() (int64, error)
	// points are places that a search by time looks at, in order, the first at
	// position 0: how many there are, and where the i-th stands and the time of
	// the first entry behind it. It is not ok where nothing has a time.
	points() (int, error)
	point(i int) (position int64, at time.Time, ok bool, err error)
	// random reports whether reading backwards costs no more than forwards.
	random() bool
}

// plain is a file as it was written; it may grow.
type plain struct{ *os.File }

// pointEvery is how far apart the points of a plain file are: what a search by
// time can't tell apart is read.
const pointEvery = 64 << 10

func (p plain) size() (int64, error) {
	info, err := p.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (p plain) random() bool { return true }

func (p plain) points() (int, error) {
	size, err := p.size()
	return max(1, int(size/pointEvery)), err
}

// point reads a little first: an entry is a few hundred bytes.
func (p plain) point(i int) (position int64, at time.Time, ok bool, err error) {
	from := int64(i) * pointEvery
	for _, room := range []int{4 << 10, pointEvery} {
		buf := make([]byte, room)
		n, err := p.ReadAt(buf, from)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, at, false, err
		}
		buf, position = buf[:n], from
		if i > 0 { // the end of an entry that began before
			cut := bytes.IndexByte(buf, '\n') + 1
			if cut == 0 {
				continue
			}
			buf, position = buf[cut:], from+int64(cut)
		}
		for entry := range bytes.Lines(buf) {
			if l, ok := parseLine(entry); ok {
				return position, l.At, true, nil
			}
		}
	}
	return position, at, false, nil
}

// note is what a reader says by itself.
type note struct{ *strings.Reader }

func (n note) size() (int64, error) { return n.Size(), nil }

func (n note) random() bool { return true }

func (n note) points() (int, error) { return 1, nil }

func (n note) point(int) (position int64, at time.Time, ok bool, err error) {
	return 0, at, false, nil
}

// indexed is a file that Compress has made. One of its members is unpacked at
// a time.
type indexed struct {
	file    *os.File
	members []Member
	starts  []int64 // where the text of each begins, and where the last one's ends
	now     int     // the member that text holds
	text    []byte  // nil = of none
}

// longestMember is how much text of a member is unpacked into memory. Larger
// ones are of files that hold no entries.
const longestMember = 4 << 20

// newContent finds out how a compressed file can be read. One without an index,
// because somebody else compressed it or a crash cut it, is read from its
// beginning to where it can be read.
func newContent(f *os.File, zip bool) (content, error) {
	if !zip {
		return plain{f}, nil
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	members, err := Members(f, info.Size())
	if err != nil {
		return &sequence{file: f}, nil
	}
	x := &indexed{file: f, members: members, starts: make([]int64, len(members)+1)}
	for i, m := range members {
		if m.Text > longestMember {
			return &sequence{file: f}, nil
		}
		x.starts[i+1] = x.starts[i] + m.Text
	}
	return x, nil
}

func (x *indexed) size() (int64, error) { return x.starts[len(x.members)], nil }

func (x *indexed) random() bool { return true }

func (x *indexed) points() (int, error) { return max(1, len(x.members)), nil }

func (x *indexed) point(i int) (position int64, at time.Time, ok bool, err error) {
	if len(x.members) == 0 {
		return 0, at, false, nil
	}
	at = x.members[i].First
	return x.starts[i], at, at.Unix() != 0, nil
}

// ReadAt implements io.ReaderAt.
func (x *indexed) ReadAt(b []byte, from int64) (n int, err error) {
	i := sort.Search(len(x.members), func(i int) bool { return x.starts[i+1] > from })
	for ; n < len(b); i++ {
		if i == len(x.members) {
			return n, io.EOF
		}
		if x.text == nil || x.now != i {
			x.unpack(i)
		}
		n += copy(b[n:], x.text[from+int64(n)-x.starts[i]:])
	}
	return n, nil
}

// unpack reads a member. Of a damaged one, what comes before the damage is
// kept, and a line tells of it; zeros, which readers skip, fill it up.
func (x *indexed) unpack(i int) {
	m := x.members[i]
	text := make([]byte, m.Text)
	z, err := gzip.NewReader(io.NewSectionReader(x.file, m.At, m.Size))
	n := 0
	if err == nil {
		n, err = io.ReadFull(z, text)
	}
	if err == nil { // the checksum comes after the text
		if more, end := z.Read(make([]byte, 1)); more > 0 {
			err = errors.New("it has more text than its header says")
		} else {
			err = end
		}
	}
	if err != nil && !errors.Is(err, io.EOF) || int64(n) < m.Text {
		note := fmt.Appendf(nil, "dunnage: the log before this line is damaged: %v\n", err)
		n = bytes.LastIndexByte(text[:max(0, min(n, len(text)-len(note)))], '\n') + 1
		n += copy(text[n:], note)
		clear(text[n:])
	}
	x.now, x.text = i, text
}

// sequence is a compressed file that can only be read from its beginning.
type sequence struct {
	file *os.File
	from io.Reader // nil = not begun
	at   int64
	last byte   // of the text that was read
	said []byte // the rest of the line that tells of damage
	end  error
	all  int64 // size; 0 = not known
}

func (s *sequence) random() bool { return false }

func (s *sequence) points() (int, error) { return 1, nil }

func (s *sequence) point(int) (position int64, at time.Time, ok bool, err error) {
	head := make([]byte, 4<<10)
	n, err := s.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, at, false, err
	}
	for entry := range bytes.Lines(head[:n]) {
		if l, ok := parseLine(entry); ok {
			return 0, l.At, true, nil
		}
	}
	return 0, at, false, nil
}

func (s *sequence) size() (int64, error) {
	if s.all > 0 {
		return s.all, nil
	}
	buf := make([]byte, readSize)
	for at := int64(0); ; {
		n, err := s.ReadAt(buf, at)
		at += int64(n)
		if errors.Is(err, io.EOF) {
			s.all = at
			return at, nil
		}
		if err != nil {
			return 0, err
		}
	}
}

// ReadAt implements io.ReaderAt: going back begins anew.
func (s *sequence) ReadAt(b []byte, from int64) (n int, err error) {
	if len(b) == 0 {
		return 0, nil
	}
	if s.from == nil || from < s.at {
		if _, err := s.file.Seek(0, io.SeekStart); err != nil {
			return 0, err
		}
		*s = sequence{file: s.file, from: bytes.NewReader(nil), all: s.all}
		if z, err := gzip.NewReader(s.file); err == nil {
			s.from = z
		} else {
			s.damaged(err)
		}
	}
	for s.at < from {
		if _, err := s.read(b[:min(int64(len(b)), from-s.at)]); err != nil {
			return 0, err
		}
	}
	for n < len(b) && err == nil {
		var k int
		k, err = s.read(b[n:])
		n += k
	}
	return n, err
}

func (s *sequence) read(b []byte) (n int, err error) {
	if len(s.said) == 0 && s.end == nil {
		n, err = s.from.Read(b)
		s.at += int64(n)
		if n > 0 {
			s.last = b[n-1]
		}
		switch {
		case errors.Is(err, io.EOF):
			s.end = io.EOF
		case err != nil:
			s.damaged(err)
		}
		return n, nil
	}
	n = copy(b, s.said)
	s.said = s.said[n:]
	s.at += int64(n)
	if n == 0 {
		return 0, s.end
	}
	return n, nil
}

func (s *sequence) damaged(why error) {
	if s.at > 0 && s.last != '\n' {
		s.said = []byte{'\n'}
	}
	s.said, s.end = fmt.Appendf(s.said, "dunnage: the log is damaged here, and the rest of its file can't be read: %v\n", why), io.EOF
}
