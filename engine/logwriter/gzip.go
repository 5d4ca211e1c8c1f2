package logwriter

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// A compressed file is a row of gzip members, each of whole entries, which any
// program for gzip reads as one file. The header of each says in an extra field
// how long the member is, so that a reader finds the last one, or the one of a
// time, without unpacking what is before it (as BGZF does, SAM specification,
// 4.1):
//
//	"DL" uint16(16)   RFC 1952, 2.3.1.1: identification and length
//	uint32            bytes of the member, header and trailer included
//	uint32            bytes of its text
//	int64             time of its first entry, in nanoseconds since 1970
//
// all little-endian. The field stands 12 bytes after the beginning of a member.

// memberText is how much text makes a member: it is unpacked in about 2 ms.
const memberText = 256 << 10

const (
	extraAt   = 12 // the fixed header and the length of the extra field
	extraSize = 20
)

// Member is a part of a compressed log that can be unpacked by itself.
type Member struct {
	At, Size int64 // where it stands in the file
	Text     int64 // bytes that come out of it
	First    time.Time
}

// errNotOurs is a gzip file without the extra field: somebody else's.
var errNotOurs = errors.New("no index of members")

// Members lists the members of a compressed log of size bytes. One that
// somebody else has compressed is an error, and can be read from its beginning.
func Members(f io.ReaderAt, size int64) ([]Member, error) {
	var out []Member
	head := make([]byte, extraAt+extraSize)
	for at := int64(0); at < size; {
		if _, err := f.ReadAt(head, at); err != nil {
			return nil, fmt.Errorf("member at byte %d: %w", at, err)
		}
		m := Member{At: at}
		extra := head[extraAt:]
		if !bytes.Equal(head[:4], []byte{0x1f, 0x8b, 8, 4}) || !bytes.Equal(extra[:4], []byte{'D', 'L', 16, 0}) {
			return nil, fmt.Errorf("member at byte %d: %w", at, errNotOurs)
		}
		m.Size, m.Text = int64(binary.LittleEndian.Uint32(extra[4:])), int64(binary.LittleEndian.Uint32(extra[8:]))
		m.First = time.Unix(0, int64(binary.LittleEndian.Uint64(extra[12:]))).UTC()
		if m.Size <= int64(len(head)) || at+m.Size > size {
			return nil, fmt.Errorf("member at byte %d: %w", at, errNotOurs)
		}
		out = append(out, m)
		at += m.Size
	}
	return out, nil
}

// file is what Compress writes to.
type file interface {
	io.Writer
	io.WriterAt
	io.Seeker
}

// Compress writes the log that it reads to an empty file.
func Compress(to file, from io.Reader) error {
	// The fastest level: text of logs shrinks to a tenth with it, and the
	// slower ones take thrice the time for a fifth of that.
	z, err := gzip.NewWriterLevel(to, gzip.BestSpeed)
	if err != nil {
		return err
	}
	entries := bufio.NewReaderSize(from, readSize)
	m := Member{First: time.Unix(0, 0)}
	for err == nil {
		err = compressMember(to, z, entries, &m)
	}
	if !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// compressMember writes the member after m; io.EOF means that it was the last.
func compressMember(to file, z *gzip.Writer, entries *bufio.Reader, m *Member) error {
	entry, err := entries.ReadSlice('\n')
	if len(entry) == 0 {
		return err
	}
	if l, ok := ParseLine(entry); ok {
		m.First = l.At
	}
	z.Reset(to)
	z.Extra = append([]byte{'D', 'L', 16, 0}, make([]byte, 16)...)
	z.OS = 3 // Unix
	m.At, m.Text = m.At+m.Size, 0
	for {
		if _, werr := z.Write(entry); werr != nil {
			return werr
		}
		m.Text += int64(len(entry))
		whole := len(entry) > 0 && entry[len(entry)-1] == '\n'
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) || m.Text >= memberText && whole {
			break
		}
		entry, err = entries.ReadSlice('\n')
	}
	if cerr := z.Close(); cerr != nil {
		return cerr
	}
	end, serr := to.Seek(0, io.SeekCurrent)
	if serr != nil {
		return serr
	}
	m.Size = end - m.At
	field := binary.LittleEndian.AppendUint32(nil, uint32(m.Size))
	field = binary.LittleEndian.AppendUint32(field, uint32(m.Text))
	field = binary.LittleEndian.AppendUint64(field, uint64(m.First.UnixNano()))
	if _, werr := to.WriteAt(field, m.At+extraAt+4); werr != nil {
		return werr
	}
	return err
}
