package api

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
)

// An exec connection carries frames in both directions: one byte of type, four
// of length (big endian), the payload. The client sends stdin (empty = its
// end) and resize; the agent sends stdout, stderr, window and, last, exit.
//
// The client may have execWindow bytes of stdin on the way; window frames give
// back what the command has read. Without that a command that doesn't read
// would fill the connection, and neither a resize nor the client's end would
// get through.
const (
	frameStdin  byte = 0
	frameStdout byte = 1
	frameStderr byte = 2
	frameResize byte = 3 // rows, columns: two bytes each
	frameExit   byte = 4 // JSON execExit
	frameWindow byte = 5 // bytes read: four bytes
)

const (
	frameMax   = 64 << 10
	execWindow = 256 << 10
)

// execExit is how a command ended: with a code, or not at all.
type execExit struct {
	Code  int    `json:"code"`
	Error *Error `json:"error,omitempty"`
}

// frameWriter writes whole frames from any goroutine.
type frameWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (f *frameWriter) frame(kind byte, payload []byte) error {
	b := make([]byte, 5+len(payload))
	b[0] = kind
	binary.BigEndian.PutUint32(b[1:], uint32(len(payload)))
	copy(b[5:], payload)
	f.mu.Lock()
	defer f.mu.Unlock()
	_, err := f.w.Write(b)
	return err
}

func (f *frameWriter) resize(size [2]uint16) error {
	b := binary.BigEndian.AppendUint16(nil, size[0])
	return f.frame(frameResize, binary.BigEndian.AppendUint16(b, size[1]))
}

func (f *frameWriter) window(n int) error {
	return f.frame(frameWindow, binary.BigEndian.AppendUint32(nil, uint32(n)))
}

func (f *frameWriter) exit(e execExit) error {
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return f.frame(frameExit, b)
}

// output is an io.Writer whose bytes become frames of one kind.
type output struct {
	frames *frameWriter
	kind   byte
}

func (o output) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		n := min(len(p), frameMax)
		if err := o.frames.frame(o.kind, p[:n]); err != nil {
			return written, err
		}
		written += n
		p = p[n:]
	}
	return written, nil
}

func readFrame(r io.Reader) (kind byte, payload []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > frameMax {
		return 0, nil, fmt.Errorf("exec protocol: a frame of %d bytes, the limit is %d", n, frameMax)
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(r, payload)
	return head[0], payload, err
}

func parseResize(b []byte) ([2]uint16, error) {
	if len(b) != 4 {
		return [2]uint16{}, fmt.Errorf("exec protocol: a resize of %d bytes, not 4", len(b))
	}
	return [2]uint16{binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])}, nil
}

func parseWindow(b []byte) (int, error) {
	if len(b) != 4 {
		return 0, fmt.Errorf("exec protocol: a window of %d bytes, not 4", len(b))
	}
	return int(binary.BigEndian.Uint32(b)), nil
}

// errWindow ends a connection whose client sends more than it may.
var errWindow = errors.New("exec protocol: the client sent more input than the window allows")

// input holds stdin between the connection and the command. The side of the
// connection never waits.
type input struct {
	mu   sync.Mutex
	cond *sync.Cond
	buf  []byte
	err  error           // after buf
	took func(int) error // gives the window back
}

func newInput(took func(int) error) *input {
	in := &input{took: took}
	in.cond = sync.NewCond(&in.mu)
	return in
}

func (in *input) put(b []byte) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.buf)+len(b) > execWindow {
		return errWindow
	}
	in.buf = append(in.buf, b...)
	in.cond.Broadcast()
	return nil
}

// end makes Read return err once everything was read. The first call counts.
func (in *input) end(err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.err == nil {
		in.err = err
	}
	in.cond.Broadcast()
}

// abort makes Read return err now.
func (in *input) abort(err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.buf, in.err = nil, err
	in.cond.Broadcast()
}

// Read is the command's side; it waits for input.
func (in *input) Read(p []byte) (int, error) {
	n, err := in.take(p)
	if n > 0 {
		if err := in.took(n); err != nil {
			return n, err
		}
	}
	return n, err
}

func (in *input) take(p []byte) (int, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for len(in.buf) == 0 && in.err == nil {
		in.cond.Wait()
	}
	if len(in.buf) == 0 {
		return 0, in.err
	}
	n := copy(p, in.buf)
	in.buf = in.buf[n:]
	return n, nil
}
