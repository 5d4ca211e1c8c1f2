package api_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"dunnage/spec"
)

func (w *world) exec(ctx context.Context, stdin io.Reader, resize <-chan [2]uint16, command ...string) (code int, out, errOut string, err error) {
	var o, e bytes.Buffer
	code, err = w.client.Exec(ctx, spec.ExecRequest{Replica: "shop-web-1", Command: command}, stdin, &o, &e, resize)
	return code, o.String(), e.String(), err
}

func TestExec(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		command  []string
		code     int
		out, err string
	}{
		{[]string{"echo", "a", "b"}, 0, "a b\n", ""},
		{[]string{"fail", "oh"}, 1, "", "oh\n"},
		{[]string{"exit", "137"}, 137, "", ""},
	} {
		code, out, errOut, err := w.exec(t.Context(), nil, nil, c.command...)
		if err != nil || code != c.code || out != c.out || errOut != c.err {
			t.Errorf("%v: %d %q %q %v", c.command, code, out, errOut, err)
		}
	}
	if _, _, _, err := w.exec(t.Context(), nil, nil, "nope"); !errors.Is(err, spec.ErrNotFound) {
		t.Errorf("no such program: %v", err)
	}
}

// TestExecStdin sends far more than the window and gets it back: input flows
// both ways at once and its end reaches the command while output goes on.
func TestExecStdin(t *testing.T) {
	w := newWorld(t)
	in := make([]byte, 5<<20)
	if _, err := rand.Read(in); err != nil {
		t.Fatal(err)
	}
	code, out, _, err := w.exec(t.Context(), bytes.NewReader(in), nil, "cat")
	if err != nil || code != 0 || out != string(in) {
		t.Errorf("code %d, %d of %d bytes back, %v", code, len(out), len(in), err)
	}
}

func TestExecResize(t *testing.T) {
	w := newWorld(t)
	sizes := make(chan [2]uint16, 1)
	sizes <- [2]uint16{40, 132}
	in, closeIn := io.Pipe()
	defer closeIn.Close()
	if _, out, _, err := w.exec(t.Context(), in, sizes, "size"); err != nil || out != "40 132\n" {
		t.Errorf("%q %v", out, err)
	}
}

// TestExecClientGone closes a client whose command reads no input, with the
// window full: the command must end all the same.
func TestExecClientGone(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, _, _, err := w.exec(ctx, strings.NewReader(strings.Repeat("x", 4<<20)), nil, "deaf")
		done <- err
	}()
	w.await(t, "deaf begins")
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("client: %v", err)
	}
	w.await(t, "deaf ends")
}

// TestExecEndsWithTheServer: a session doesn't keep the agent from stopping.
func TestExecEndsWithTheServer(t *testing.T) {
	w := newWorld(t)
	done := make(chan error, 1)
	go func() {
		_, _, _, err := w.exec(t.Context(), nil, nil, "sleep")
		done <- err
	}()
	w.await(t, "sleep begins")
	w.stop()
	if err := <-done; err == nil {
		t.Error("a session that was cut off ended well")
	}
}

func (w *world) await(t *testing.T, call string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !slices.Contains(w.fake.Calls(), call); {
		if time.Now().After(deadline) {
			t.Fatalf("%q didn't happen: %v", call, w.fake.Calls())
		}
		time.Sleep(5 * time.Millisecond) // the fake has no event for its calls
	}
}
