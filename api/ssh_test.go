package api

import (
	"context"
	"errors"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dunnage/spec"
)

func TestSSHArgs(t *testing.T) {
	for host, want := range map[string][]string{
		"ssh://box":                   {"--", "box", "dunnage dial-stdio"},
		"ssh://me@box:2222":           {"-p", "2222", "-l", "me", "--", "box", "dunnage dial-stdio"},
		"ssh://box/run/it's/a b.sock": {"--", "box", `DUNNAGE_HOST='unix:///run/it'\''s/a b.sock' dunnage dial-stdio`},
	} {
		u, err := url.Parse(host)
		if err != nil {
			t.Fatal(err)
		}
		got, err := sshArgs(host, u)
		if err != nil || !slices.Equal(got[5:], want) {
			t.Errorf("%s: %q, %v", host, got, err)
		}
	}
}

// TestCommandConn speaks HTTP through a program's standard streams, as ssh
// would carry it.
func TestCommandConn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.sock")
	l, err := Listen(path, -1)
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(failing{}, Options{Group: -1, Version: Version{Version: "far"}})
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	defer func() {
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	c := commandClient(t, "ssh://far", "socat", "-", "UNIX-CONNECT:"+path)
	v, err := c.Version(t.Context())
	if err != nil || v.Version != "far" {
		t.Errorf("%+v, %v", v, err)
	}
	if _, err := c.Rules(t.Context()); err == nil || !strings.Contains(err.Error(), "always fails") {
		t.Errorf("an error from afar: %v", err)
	}
	c.Close()
}

func TestCommandConnThatFailsSaysWhy(t *testing.T) {
	for name, script := range map[string]string{
		"at once":          "echo 'Permission denied (publickey).' >&2; exit 255",
		"deaf, then ended": "exec <&-; echo 'Permission denied (publickey).' >&2; sleep 0.1; exit 255",
		"after some input": "head -c 1 >/dev/null; echo 'Permission denied (publickey).' >&2; exit 255",
	} {
		t.Run(name, func(t *testing.T) {
			c := commandClient(t, "ssh://far", "sh", "-c", script)
			_, err := c.Version(t.Context())
			if !errors.Is(err, ErrNoAgent) || !strings.Contains(err.Error(), "Permission denied (publickey).") {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestCommandConnWritesFailLikeReads closes the program's end under a write,
// which http.Transport reports when it loses the race against the read.
func TestCommandConnWritesFailLikeReads(t *testing.T) {
	conn, err := dialCommand(t.Context(), "ssh://far", "sh", []string{"-c", "echo no route >&2; exit 255"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Fatal("a program that says nothing was read from")
	}
	_, err = conn.Write([]byte("late"))
	if !errors.Is(err, ErrNoAgent) || !strings.Contains(err.Error(), "no route") {
		t.Errorf("got %v", err)
	}
}

// failing is an agent that can do nothing.
type failing struct{ Backend }

var errAlways = errors.New("always fails")

func (failing) Rules(context.Context) (spec.RuleSet, error) { return spec.RuleSet{}, errAlways }

func (failing) Change(context.Context, string, spec.ChangeRequest) (spec.Operation, error) {
	return spec.Operation{}, errAlways
}

func commandClient(t *testing.T, host, name string, args ...string) *Client {
	t.Helper()
	return newClient(host, Version{}, func(ctx context.Context) (net.Conn, error) { return dialCommand(ctx, host, name, args) })
}
