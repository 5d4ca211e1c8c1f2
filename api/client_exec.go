package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"dunnage/spec"
)

// Exec implements Backend. When ctx ends the connection is closed, which kills
// the command. A stdin whose Read can't be interrupted (a terminal) keeps one
// goroutine until it returns.
func (c *Client) Exec(ctx context.Context, r spec.ExecRequest, stdin io.Reader, stdout, stderr io.Writer, resize <-chan [2]uint16) (int, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return 0, fmt.Errorf("encode the request: %w", err)
	}
	header := http.Header{"Connection": {"Upgrade"}, "Upgrade": {execProtocol}}
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	stop := c.watch(ctx, giveUp)
	resp, err := c.do(ctx, http.MethodPost, "/exec", bytes.NewReader(body), header)
	stop() // the command goes on while the agent stands still
	if err != nil {
		return 0, err
	}
	conn, ok := resp.Body.(io.ReadWriteCloser)
	if resp.StatusCode != http.StatusSwitchingProtocols || !ok {
		return 0, errors.Join(fmt.Errorf("exec: the agent answered %s instead of switching protocols", resp.Status), resp.Body.Close())
	}
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	s := &execSession{conn: conn, frames: frameWriter{w: conn}, window: execWindow, done: make(chan struct{})}
	s.cond = sync.NewCond(&s.mu)
	defer s.close()
	go s.sendInput(stdin)
	go s.sendSizes(resize)

	exit, err := s.receive(stdout, stderr)
	switch {
	case ctx.Err() != nil:
		return 0, ctx.Err()
	case err != nil:
		return 0, c.lost(ctx, err)
	case exit.Error != nil:
		return exit.Code, exit.Error
	}
	return exit.Code, nil
}

// execSession is the client's side of an upgraded connection.
type execSession struct {
	conn   io.ReadWriteCloser
	frames frameWriter
	done   chan struct{} // closed by close

	mu     sync.Mutex
	cond   *sync.Cond
	window int // bytes of stdin that may still be sent
	closed bool
}

func (s *execSession) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.cond.Broadcast()
	close(s.done)
	_ = s.conn.Close() // it has served its purpose
}

// receive takes the agent's frames until the command has ended.
func (s *execSession) receive(stdout, stderr io.Writer) (exit execExit, err error) {
	for {
		kind, payload, err := readFrame(s.conn)
		if err != nil {
			return exit, err
		}
		switch kind {
		case frameStdout:
			_, err = stdout.Write(payload)
		case frameStderr:
			_, err = stderr.Write(payload)
		case frameWindow:
			err = s.widen(payload)
		case frameExit:
			return exit, json.Unmarshal(payload, &exit)
		default:
			err = fmt.Errorf("exec protocol: unexpected frame %d", kind)
		}
		if err != nil {
			return exit, err
		}
	}
}

func (s *execSession) widen(payload []byte) error {
	n, err := parseWindow(payload)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.window += n
	s.cond.Broadcast()
	return nil
}

// acquire waits for room to send up to n bytes; 0 means the session is over.
func (s *execSession) acquire(n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.window == 0 && !s.closed {
		s.cond.Wait()
	}
	if s.closed {
		return 0
	}
	n = min(n, s.window)
	s.window -= n
	return n
}

// sendInput passes stdin on to its end. A connection that fails is noticed by
// receive.
func (s *execSession) sendInput(stdin io.Reader) {
	defer func() { _ = s.frames.frame(frameStdin, nil) }()
	if stdin == nil {
		return
	}
	buf := make([]byte, frameMax/2)
	for {
		n, err := stdin.Read(buf)
		for rest := buf[:n]; len(rest) > 0; {
			may := s.acquire(len(rest))
			if may == 0 || s.frames.frame(frameStdin, rest[:may]) != nil {
				return
			}
			rest = rest[may:]
		}
		if err != nil {
			return
		}
	}
}

func (s *execSession) sendSizes(resize <-chan [2]uint16) {
	for {
		select {
		case size, ok := <-resize:
			if !ok || s.frames.resize(size) != nil {
				return
			}
		case <-s.done:
			return
		}
	}
}
