package inside

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"
	"time"
)

// Version of the exchange. An agent that was upgraded meets the dunnage-init of
// before in containers that run on.
const Version = "1"

// MaxOutput bounds what is kept of a command's output, in bytes: the end, where
// the reason stands.
const MaxOutput = 4096

// maxFrame bounds a request: twice what the kernel takes as one argument.
const maxFrame = 256 << 10

// Request asks the prober to run a command. Timeout 0 is none.
type Request struct {
	Command []string
	Timeout time.Duration
}

// Answer is what became of a command. A timed-out one has been killed.
type Answer struct {
	Code     int
	TimedOut bool
	Output   []byte
}

// WriteRequest sends r: the time in milliseconds and the arguments, which hold
// no NUL, separated by it.
func WriteRequest(w io.Writer, r Request) error {
	fields := append([]string{strconv.FormatInt(r.Timeout.Milliseconds(), 10)}, r.Command...)
	return writeFrame(w, []byte(strings.Join(fields, "\x00")))
}

// ReadRequest reads what WriteRequest has sent.
func ReadRequest(r io.Reader) (Request, error) {
	b, err := readFrame(r)
	if err != nil {
		return Request{}, err
	}
	fields := strings.Split(string(b), "\x00")
	ms, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil || len(fields) < 2 {
		return Request{}, errMalformed
	}
	return Request{Command: fields[1:], Timeout: time.Duration(ms) * time.Millisecond}, nil
}

// WriteAnswer sends a.
func WriteAnswer(w io.Writer, a Answer) error {
	head := strconv.Itoa(a.Code) + "\x00" + strconv.FormatBool(a.TimedOut) + "\x00"
	return writeFrame(w, append([]byte(head), a.Output...))
}

// ReadAnswer reads what WriteAnswer has sent.
func ReadAnswer(r io.Reader) (Answer, error) {
	b, err := readFrame(r)
	if err != nil {
		return Answer{}, err
	}
	fields := bytes.SplitN(b, []byte{0}, 3)
	if len(fields) < 3 {
		return Answer{}, errMalformed
	}
	code, err := strconv.Atoi(string(fields[0]))
	if err != nil {
		return Answer{}, errMalformed
	}
	return Answer{Code: code, TimedOut: string(fields[1]) == "true", Output: fields[2]}, nil
}

var errMalformed = errors.New("prober: malformed frame")

// writeFrame puts four bytes of length, the highest first, before the body.
func writeFrame(w io.Writer, body []byte) error {
	if len(body) > maxFrame {
		return errors.New("prober: the command is too long")
	}
	n := len(body)
	_, err := w.Write(append([]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, body...))
	return err
}

func readFrame(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := int(head[0])<<24 | int(head[1])<<16 | int(head[2])<<8 | int(head[3])
	if n > maxFrame {
		return nil, errMalformed
	}
	body := make([]byte, n)
	_, err := io.ReadFull(r, body)
	return body, err
}
