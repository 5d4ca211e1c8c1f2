package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"dunnage/spec"
)

// stream sends server-sent events, each flushed as it is sent. The socket's
// buffer (some 200 KB) is what a client may be behind; with patience set, one
// that takes nothing for that long is cut off.
type stream struct {
	mu       sync.Mutex // progress comes from any goroutine
	w        http.ResponseWriter
	rc       *http.ResponseController
	patience time.Duration // 0 = wait for ever
	err      error         // of the first failed write: the connection is useless then
}

func newStream(w http.ResponseWriter, patience time.Duration) *stream {
	return &stream{w: w, rc: http.NewResponseController(w), patience: patience}
}

// run sends the header at once, so that a client knows it is connected before
// anything happens, then what produce sends, then how that ended.
func (s *stream) run(ctx context.Context, produce func() error) error {
	s.w.Header().Set("Content-Type", "text/event-stream")
	s.w.Header().Set("Cache-Control", "no-store")
	s.w.WriteHeader(http.StatusOK)
	if err := s.rc.Flush(); err != nil {
		return err
	}
	err := produce()
	if ctx.Err() != nil && (err == nil || errors.Is(err, ctx.Err())) { // cut short by a Shutdown: this is no end
		err = fmt.Errorf("the agent is stopping: %w", spec.ErrUnavailable)
	}
	if err == nil {
		return s.send(messageEnd, struct{}{})
	}
	if s.broken() == nil {
		_ = s.send(messageError, wireError(err)) // the error itself is logged by the guard
	}
	return err
}

func (s *stream) broken() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *stream) send(name string, v any) error { return s.sendID("", name, v) }

func (s *stream) sendID(id, name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	var b bytes.Buffer
	if id != "" {
		fmt.Fprintf(&b, "id: %s\n", id)
	}
	fmt.Fprintf(&b, "event: %s\ndata: %s\n\n", name, data)

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = s.write(b.Bytes())
	}
	return s.err
}

func (s *stream) write(b []byte) error {
	if s.patience > 0 {
		if err := s.rc.SetWriteDeadline(time.Now().Add(s.patience)); err != nil {
			return err
		}
	}
	if _, err := s.w.Write(b); err != nil {
		return fmt.Errorf("the client doesn't take the stream: %w", err)
	}
	if err := s.rc.Flush(); err != nil {
		return fmt.Errorf("the client doesn't take the stream: %w", err)
	}
	return nil
}
