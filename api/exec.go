package api

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"dunnage/spec"
)

// exec upgrades the connection and runs a command over it. What goes wrong
// after the upgrade travels in the exit frame.
func (s *Server) exec(w http.ResponseWriter, r *http.Request) error {
	var q spec.ExecRequest
	if err := decode(w, r, &q); err != nil {
		return err
	}
	if q.Replica == "" || len(q.Command) == 0 {
		return invalid("replica or command is missing")
	}
	if r.Header.Get("Upgrade") != execProtocol {
		return invalid("exec needs the header Upgrade: %s", execProtocol)
	}
	s.execs.Add(1)
	defer s.execs.Done()
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return fmt.Errorf("take over the connection: %w", err)
	}
	if a, ok := w.(*answer); ok {
		a.status = http.StatusSwitchingProtocols
	}
	return s.runExec(r.Context(), q, conn, buf.Reader)
}

func (s *Server) runExec(ctx context.Context, q spec.ExecRequest, conn net.Conn, r *bufio.Reader) error {
	// The server's deadlines were for the request.
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if _, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+execProtocol+"\r\n\r\n"); err != nil {
		return err
	}
	frames := &frameWriter{w: conn}
	in := newInput(frames.window)
	resize := make(chan [2]uint16, 1)
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		cancel(receive(r, in, resize))
	}()
	// Whatever ends the session early also has to end a write that waits for
	// a client that doesn't read.
	unblock := context.AfterFunc(ctx, func() { _ = conn.SetWriteDeadline(time.Now().Add(s.options.Patience)) })
	defer unblock()

	code, err := s.backend.Exec(ctx, q, in, output{frames, frameStdout}, output{frames, frameStderr}, resize)
	in.abort(io.ErrClosedPipe)
	exit := execExit{Code: code}
	if err != nil {
		exit.Error = wireError(err)
	}
	_ = frames.exit(exit) // a client that is gone needs no answer
	_ = conn.Close()      // lets receive return
	<-gone
	return err
}

// receive takes the client's frames until the connection ends, and says why.
// It never waits for the command.
func receive(r io.Reader, in *input, resize chan [2]uint16) error {
	for {
		kind, payload, err := readFrame(r)
		if err == nil {
			err = accept(kind, payload, in, resize)
		}
		if err != nil {
			err = fmt.Errorf("the client is gone: %w", err)
			in.abort(err)
			return err
		}
	}
}

func accept(kind byte, payload []byte, in *input, resize chan [2]uint16) error {
	switch kind {
	case frameStdin:
		if len(payload) == 0 {
			in.end(io.EOF)
			return nil
		}
		return in.put(payload)
	case frameResize:
		size, err := parseResize(payload)
		if err != nil {
			return err
		}
		select { // only the newest size matters
		case <-resize:
		default:
		}
		resize <- size
		return nil
	}
	return fmt.Errorf("exec protocol: unexpected frame %d", kind)
}
