// Package lameduck ends an HTTP server so that no client notices: on SIGTERM it
// goes on accepting and answering, says "Connection: close" on every answer, and
// returns when no connection is open any more, or after a limit.
//
// http.Server.Shutdown is not that: it closes the listener and the idle
// keep-alive connections at once, and a request on its way there is lost.
package lameduck

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Serve answers on l until SIGTERM or SIGINT and then, for limit at most, as a
// lame duck. It returns nil after an orderly end.
func Serve(l net.Listener, h http.Handler, limit time.Duration) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	return serve(ctx, l, h, limit)
}

func serve(ctx context.Context, l net.Listener, h http.Handler, limit time.Duration) error {
	var leaving atomic.Bool
	open := newConnections()
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if leaving.Load() {
				w.Header().Set("Connection", "close")
			}
			h.ServeHTTP(w, r)
		}),
		ConnState:         open.track,
		ReadHeaderTimeout: 30 * time.Second,
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(l) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	leaving.Store(true)
	open.awaitNone(limit)
	err := srv.Close()
	if served := <-failed; !errors.Is(served, http.ErrServerClosed) {
		return served
	}
	return err
}

// connections knows which connections are open.
type connections struct {
	mu      sync.Mutex
	open    map[net.Conn]bool
	changed chan struct{}
}

func newConnections() *connections {
	return &connections{open: map[net.Conn]bool{}, changed: make(chan struct{}, 1)}
}

func (c *connections) track(conn net.Conn, s http.ConnState) {
	c.mu.Lock()
	if s == http.StateClosed || s == http.StateHijacked {
		delete(c.open, conn)
	} else {
		c.open[conn] = true
	}
	c.mu.Unlock()
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

func (c *connections) none() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.open) == 0
}

// awaitNone returns when no connection is open, or after limit.
func (c *connections) awaitNone(limit time.Duration) {
	t := time.NewTimer(limit)
	defer t.Stop()
	for !c.none() {
		select {
		case <-c.changed:
		case <-t.C:
			return
		}
	}
}
