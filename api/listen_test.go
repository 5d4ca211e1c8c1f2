package api_test

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"dunnage/api"
)

func TestListenMode(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	path := filepath.Join(t.TempDir(), "run", "agent.sock")
	l, err := api.Listen(path, os.Getegid())
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != api.SocketMode {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Dir(path) + "/*"); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

func TestListenReplacesAStaleSocketOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.sock")
	first, err := api.Listen(path, -1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := api.Listen(path, -1); err == nil || !strings.Contains(err.Error(), "another agent listens there") {
		t.Fatalf("a second agent: %v", err)
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("the first agent lost its socket: %v", err)
	}
	conn.Close()
	mustClose(t, first)

	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	mustClose(t, stale) // as a killed agent leaves it
	l, err := api.Listen(path, -1)
	if err != nil {
		t.Fatalf("a stale socket: %v", err)
	}
	mustClose(t, l)

	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := api.Listen(path, -1); err == nil || !strings.Contains(err.Error(), "a file is in the way") {
		t.Errorf("a file: %v", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "precious" {
		t.Error("the file is gone")
	}
	if _, err := api.Listen("/tmp/"+strings.Repeat("x", 120), -1); err == nil || !strings.Contains(err.Error(), "shorter") {
		t.Errorf("a long path: %v", err)
	}
}

// TestCloseLeavesASuccessorsSocket: an old agent that ends late must not take
// the name from the one that follows it.
func TestCloseLeavesASuccessorsSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.sock")
	old, err := api.Listen(path, -1)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	next, err := api.Listen(path, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, next)
	if err := old.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the successor's socket: %v", err)
	}
}

func TestDialErrors(t *testing.T) {
	dir := t.TempDir()
	dead := filepath.Join(dir, "dead.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	mustClose(t, l)
	file := filepath.Join(dir, "passwd")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for host, says := range map[string]string{
		"unix://" + file:               file + " is not a socket",
		"unix://" + dir + "/none.sock": "no agent answers at unix://" + dir + "/none.sock: there is no such socket",
		"unix://" + dead:               "nobody listens",
	} {
		c, err := api.Dial(host, api.Version{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Status(t.Context())
		var no *api.NoAgentError
		if !errors.Is(err, api.ErrNoAgent) || !errors.As(err, &no) || !strings.Contains(err.Error(), says) || no.Hint() == "" {
			t.Errorf("%s: %v", host, err)
		}
		if no != nil && strings.Contains(no.Hint(), "move it away") != strings.HasSuffix(says, "is not a socket") {
			t.Errorf("%s: the next step is %s", host, no.Hint())
		}
	}
	for _, host := range []string{"tcp://1.2.3.4", "unix://relative.sock", "agent.sock", "ssh://", "ssh://-oProxyCommand=x", "ssh://u:secret@h", "ssh://-l@h"} {
		if _, err := api.Dial(host, api.Version{}); !errors.Is(err, api.ErrInvalid) {
			t.Errorf("%s: %v", host, err)
		} else if strings.Contains(host, "secret") && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error repeats the password", host)
		}
	}
}

func mustClose(t *testing.T, c io.Closer) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
