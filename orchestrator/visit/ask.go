package visit

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"

	"dunnage/spec"
)

// maxAnswer bounds what is read of an answer, in bytes: its status is what
// counts.
const maxAnswer = 64 << 10

var (
	errNoAnswer = errors.New("no answer")
	errClosed   = errors.New("the connection was closed without an answer")
)

// ask does what a client does, on a connection of its own: a kept one would
// pass by the rules of today. nil is an answer.
func ask(ctx context.Context, d Dialer, to spec.VisitTarget) error {
	c, err := d.Dial(ctx, to.From, to.Addr)
	if err != nil {
		return plain(err)
	}
	defer end(c)
	if to.Path == "" {
		return nil
	}
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	status, err := get(c, to)
	switch {
	case err != nil:
		return plain(err)
	case status >= http.StatusInternalServerError:
		return fmt.Errorf("GET %s answered %d %s", to.Path, status, http.StatusText(status))
	}
	return nil
}

// get sends the request and reads the answer with its body, which a server may
// not like to be cut off. The server isn't asked to close: who closes first
// keeps the connection's remains for a minute, and end sees to it that we don't.
func get(c net.Conn, to spec.VisitTarget) (status int, err error) {
	_, err = fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: dunnage-visitor\r\n\r\n", to.Path, to.Addr)
	if err != nil {
		return 0, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(io.LimitReader(c, maxAnswer)), nil)
	if err != nil {
		return 0, err
	}
	_, _ = io.Copy(io.Discard, resp.Body) // one that is longer is cut off after all
	_ = resp.Body.Close()
	return resp.StatusCode, nil
}

// end closes so that little stays behind. The server reads an ordinary end of
// the stream, since the FIN goes first; the reset that follows spares us the
// minute in TIME_WAIT, of which twenty visits a second would make a heap, unless
// the server has answered the FIN in between. With the server nothing stays.
func end(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
		_ = t.CloseWrite()
	}
	_ = c.Close()
}

// plain says in a few words why a visit failed.
func plain(err error) error {
	switch {
	case errors.Is(err, spec.ErrUnavailable):
		return err
	case errors.Is(err, syscall.ECONNREFUSED):
		return errors.New("connection refused")
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return errors.New("connection reset")
	case errors.Is(err, syscall.EHOSTUNREACH):
		return errors.New("no route to host")
	case errors.Is(err, syscall.ENETUNREACH):
		return errors.New("network is unreachable")
	case errors.Is(err, syscall.ETIMEDOUT):
		return errNoAnswer
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return errors.New("forbidden by a rule of the host")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errClosed
	default:
		return err
	}
}
