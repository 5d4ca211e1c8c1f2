package api

import (
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"dunnage/internal/testenv"
)

func TestMayChange(t *testing.T) {
	const group = 500
	me := os.Geteuid()
	for _, c := range []struct {
		name  string
		peer  Peer
		group int
		want  bool
	}{
		{"root", Peer{Uid: 0}, -1, true},
		{"the agent's user", Peer{Uid: me, Gid: 7}, -1, true},
		{"primary group", Peer{Uid: 1234, Gid: group}, group, true},
		{"supplementary group", Peer{Uid: 1234, Gid: 7, Groups: []int{3, group}}, group, true},
		{"a stranger", Peer{Uid: 1234, Gid: 7, Groups: []int{3}}, group, false},
		{"no group set", Peer{Uid: 1234, Gid: 7}, -1, false},
	} {
		if got := c.peer.mayChange(c.group); got != c.want {
			t.Errorf("%s: %t", c.name, got)
		}
	}
}

func TestPeerOfThisProcess(t *testing.T) {
	l, err := Listen(filepath.Join(t.TempDir(), "s"), -1)
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, l)
	c, err := net.Dial("unix", l.Addr().(*net.UnixAddr).Name[:len(l.Addr().(*net.UnixAddr).Name)-len(socketSuffix)])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	p, err := peerOf(s)
	if err != nil || p.Pid != os.Getpid() || p.Uid != os.Getuid() || p.Gid != os.Getgid() {
		t.Errorf("%+v, %v", p, err)
	}
}

// TestStrangersMayOnlyRead opens the socket's mode to everybody, as an admin
// could, and asks as a user without rights, as a member of the group, and as
// one whose group is supplementary.
func TestStrangersMayOnlyRead(t *testing.T) {
	testenv.Root(t)
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "dunnage-peer")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	path := filepath.Join(dir, "agent.sock")
	const group = 54321
	l, err := Listen(path, group)
	if err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{dir: 0o755, path: 0o666} {
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
	}
	s := NewServer(failing{}, Options{Group: group})
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
	ask := func(cred syscall.Credential, args ...string) string {
		cmd := exec.Command(curl, append([]string{"-s", "-o", "/dev/null", "-w", "%{http_code}", "--unix-socket", path}, args...)...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &cred}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return strings.TrimSpace(string(out))
	}
	change := []string{"-d", `{"kind":"stop"}`, "http://a/v1/projects/x/change"}
	for _, c := range []struct {
		name         string
		cred         syscall.Credential
		read, change string
	}{
		{"stranger", syscall.Credential{Uid: 65534, Gid: 65534}, "500", "403"},
		{"member", syscall.Credential{Uid: 65534, Gid: group}, "500", "500"},
		{"supplementary member", syscall.Credential{Uid: 65534, Gid: 65534, Groups: []uint32{7, group}}, "500", "500"},
	} {
		if got := ask(c.cred, "http://a/v1/rules"); got != c.read {
			t.Errorf("%s reads: %s", c.name, got)
		}
		if got := ask(c.cred, change...); got != c.change {
			t.Errorf("%s changes: %s, want %s", c.name, got, c.change)
		}
	}
}

func mustClose(t *testing.T, c io.Closer) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
