package lameduck

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start serves "ok" and returns the address, the leave signal and the end.
func start(t *testing.T, limit time.Duration) (string, context.CancelFunc, <-chan error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, leave := context.WithCancel(context.Background())
	t.Cleanup(leave)
	ended := make(chan error, 1)
	go func() {
		ended <- serve(ctx, l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "ok")
		}), limit)
	}()
	return l.Addr().String(), leave, ended
}

func ask(t *testing.T, c net.Conn) *http.Response {
	t.Helper()
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "ok" {
		t.Fatalf("body %q, %v", body, err)
	}
	return resp
}

func connect(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestLeavesWithoutLosingARequest(t *testing.T) {
	addr, leave, ended := start(t, time.Minute)
	idle := connect(t, addr)
	if ask(t, idle).Close {
		t.Error("announced the close before it was told to leave")
	}
	leave()
	// The idle connection is told at its next request, and new ones are still taken.
	if !eventuallyClosing(t, addr) {
		t.Error("a new connection never got Connection: close")
	}
	if !ask(t, idle).Close {
		t.Error("the idle connection didn't get Connection: close")
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Error("still serving though no connection is open")
	}
}

// eventuallyClosing asks on new connections until the server has seen the signal.
func eventuallyClosing(t *testing.T, addr string) bool {
	t.Helper()
	for range 1000 {
		if ask(t, connect(t, addr)).Close {
			return true
		}
	}
	return false
}

func TestLimit(t *testing.T) {
	addr, leave, ended := start(t, 50*time.Millisecond)
	ask(t, connect(t, addr)) // stays open and silent
	leave()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Error("a silent connection kept the server beyond its limit")
	}
}
