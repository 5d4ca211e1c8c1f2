package load

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

// client is one TCP connection that speaks HTTP/1.1.
type client struct {
	c    Config
	conn net.Conn
	in   *bufio.Reader
}

// dial connects and grants the time for the first exchange.
func dial(c Config) (*client, error) {
	d := net.Dialer{Timeout: c.Timeout, KeepAlive: -1}
	conn, err := d.Dial("tcp", c.Addr)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	cl := &client{c: c, conn: conn, in: bufio.NewReader(conn)}
	if err := cl.renew(); err != nil {
		conn.Close()
		return nil, err
	}
	return cl, nil
}

// renew grants the whole timeout again.
func (cl *client) renew() error {
	if err := cl.conn.SetDeadline(time.Now().Add(cl.c.Timeout)); err != nil {
		return fmt.Errorf("set deadline: %w", err)
	}
	return nil
}

func (cl *client) close() { cl.conn.Close() }

// answer is a complete response's outcome.
type answer struct {
	version string
	closing bool // the server announced that it closes the connection
}

// get does one exchange; check sees the body. Anything but a complete answer
// of status 200 is an error.
func (cl *client) get(path string, last bool, check func(io.Reader) error) (answer, error) {
	if _, err := io.WriteString(cl.conn, request(cl.c.Addr, path, last)); err != nil {
		return answer{}, fmt.Errorf("send request: %w", err)
	}
	resp, err := http.ReadResponse(cl.in, nil)
	if err != nil {
		return answer{}, fmt.Errorf("read answer: %w", unexpected(err))
	}
	defer resp.Body.Close()
	a := answer{version: resp.Header.Get(cl.c.VersionHeader), closing: resp.Close}
	if err := check(resp.Body); err != nil {
		return a, fmt.Errorf("read body: %w", unexpected(err))
	}
	if resp.StatusCode != http.StatusOK {
		return a, fmt.Errorf("status %d", resp.StatusCode)
	}
	return a, nil
}

// finish awaits the server's orderly close after an answer that announced it:
// a reset in its place would have hit the answer on a slower path.
func (cl *client) finish() error {
	_, err := cl.in.ReadByte()
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err == nil {
		return errors.New("bytes after the answer")
	}
	return fmt.Errorf("await close: %w", err)
}

func request(host, path string, last bool) string {
	connection := "keep-alive"
	if last {
		connection = "close"
	}
	return "GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\nConnection: " + connection + "\r\n\r\n"
}

// drain accepts any body that arrives whole.
func drain(r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	return err
}

// unexpected makes an end where more was due an error that says so.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// patternPeriod is prime, so that a lost or doubled block of any usual size
// shifts the bytes.
const patternPeriod = 251

// Pattern fills p with the bytes that a download has at offset.
func Pattern(p []byte, offset int64) {
	b := byte(offset % patternPeriod)
	for i := range p {
		p[i] = b
		if b++; b == patternPeriod {
			b = 0
		}
	}
}

// exactly checks that a body is Pattern from 0 to n, byte for byte.
func exactly(n int64) func(io.Reader) error {
	return func(r io.Reader) error {
		got, want := make([]byte, 32<<10), make([]byte, 32<<10)
		var offset int64
		for {
			m, err := r.Read(got)
			Pattern(want[:m], offset)
			if string(got[:m]) != string(want[:m]) {
				return errors.New("wrong bytes between " + strconv.FormatInt(offset, 10) + " and " + strconv.FormatInt(offset+int64(m), 10))
			}
			offset += int64(m)
			if err == io.EOF && offset != n {
				return fmt.Errorf("%d bytes of %d: %w", offset, n, io.ErrUnexpectedEOF)
			}
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return err
			}
		}
	}
}
