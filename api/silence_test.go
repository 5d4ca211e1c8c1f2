package api

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"dunnage/spec"
)

// mute starts an agent that takes connections and answers none.
func mute(t *testing.T) (*Client, *os.Process) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "DUNNAGE_TEST_MUTE="+path) // see TestMain
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
	for {
		conn, err := net.Dial("unix", path)
		if err == nil {
			_ = conn.Close() // it only had to be accepted
			break
		}
		time.Sleep(time.Millisecond)
	}
	c, err := Dial("unix://"+path, Version{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	c.patience = 0
	return c, cmd.Process
}

// An agent that hangs or is stopped is told of, with its process, and ends also
// the requests that have no deadline of their own.
func TestSilence(t *testing.T) {
	load := func(ctx context.Context, c *Client) error {
		_, err := c.Load(ctx, strings.NewReader(strings.Repeat("x", 1<<20)))
		return err
	}
	gc := func(ctx context.Context, c *Client) error { _, err := c.Collect(ctx, false, false); return err }
	events := func(ctx context.Context, c *Client) error { return c.Events(ctx, spec.EventRequest{}, nil) }
	command := func(ctx context.Context, c *Client) error {
		_, err := c.Exec(ctx, spec.ExecRequest{}, nil, nil, nil, nil)
		return err
	}
	for _, test := range []struct {
		name    string
		stopped bool
		request func(context.Context, *Client) error
	}{
		{"load, hanging", false, load},
		{"load, stopped", true, load},
		{"gc, hanging", false, gc},
		{"gc, stopped", true, gc},
		{"events, stopped", true, events},
		{"exec, stopped", true, command},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c, agent := mute(t)
			hint := "ps -o pid,stat"
			if test.stopped {
				hint = "kill -CONT"
				if err := agent.Signal(syscall.SIGSTOP); err != nil {
					t.Fatal(err)
				}
				for processState(agent.Pid) != "T" {
					time.Sleep(time.Millisecond)
				}
			}
			told := make(chan *SilentError, 1)
			c.OnSilence(func(s *SilentError) { told <- s })
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			err := test.request(ctx, c)
			var s *SilentError
			if !errors.As(err, &s) || s.Pid != agent.Pid || s.Stopped() != test.stopped || !strings.Contains(s.Hint(), hint) || !errors.Is(err, spec.ErrUnavailable) {
				t.Errorf("%v (%+v), of process %d", err, s, agent.Pid)
			}
			if len(told) != 1 {
				t.Errorf("told %d times", len(told))
			}
		})
	}
}

// A request that takes long is not given up while the agent answers others.
func TestLongRequestIsNoSilence(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	looked := make(chan struct{}, 1)
	var long net.Conn
	go func() {
		for n := 0; ; n++ {
			conn, err := l.Accept()
			switch {
			case err != nil:
				return
			case n == 0:
				long = conn
				continue
			case n == 3: // two looks were answered
				looked <- struct{}{}
				_, _ = long.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"))
			}
			_, _ = conn.Write([]byte("HTTP/1.1 200 OK\r\n\r\n"))
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); _ = long.Close() })
	c, err := Dial("unix://"+path, Version{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.patience = 0
	c.OnSilence(func(s *SilentError) { t.Errorf("told %v", s) })
	if _, err := c.Collect(t.Context(), false, false); err != nil || len(looked) != 1 {
		t.Errorf("%v, looked at: %v", err, len(looked) == 1)
	}
}
