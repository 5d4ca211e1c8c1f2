package engine

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dunnage/spec"
)

func TestExec(t *testing.T) {
	b := newBench(t)
	r := request(b.app(), 1, "serve", "8080")
	b.run(r)
	for _, c := range []struct {
		name           string
		request        spec.ExecRequest
		stdin          string
		code           int
		stdout, stderr string
	}{
		{"exit code", spec.ExecRequest{Command: []string{"/testapp", "exit", "42"}}, "", 42, "", ""},
		{"user", spec.ExecRequest{Command: []string{"/testapp", "id"}, User: "app"}, "", 0, "uid=1000 gid=1000 groups=[2000]\n", ""},
		{"stdin", spec.ExecRequest{Command: []string{"/testapp", "stdin"}}, strings.Repeat("x", 200_000), 0, strings.Repeat("x", 200_000), "bytes: 200000\n"},
		{"not found", spec.ExecRequest{Command: []string{"/nothing"}}, "", 127, "", "/nothing"},
		{"not in the PATH", spec.ExecRequest{Command: []string{"nothing"}}, "", 127, "", "dunnage: the image of web has no program \"nothing\" in its PATH\n"},
		{"not executable", spec.ExecRequest{Command: []string{"/etc/passwd"}}, "", 126, "", "permission denied"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out, errs bytes.Buffer
			term := spec.Terminal{Stdout: &out, Stderr: &errs}
			if c.stdin != "" {
				term.Stdin = strings.NewReader(c.stdin)
			}
			c.request.Replica = r.ID
			code, err := b.Exec(b.ctx, c.request, term)
			if err != nil || code != c.code || out.String() != c.stdout || !strings.Contains(errs.String(), c.stderr) {
				t.Errorf("code %d, %d bytes, stderr %q, %v", code, out.Len(), errs.String(), err)
			}
		})
	}
	var out bytes.Buffer
	code, err := b.Exec(b.ctx, spec.ExecRequest{Replica: r.ID, Command: []string{"/testapp", "env"}, Env: []string{"VERSION=other", "A=b"}, WorkingDir: "/tmp"}, spec.Terminal{Stdout: &out})
	if err != nil || code != 0 || !strings.Contains(out.String(), "VERSION=other\n") || !strings.Contains(out.String(), "A=b\n") {
		t.Errorf("%d %v %s", code, err, out.String())
	}
	if _, err := b.Exec(b.ctx, spec.ExecRequest{Replica: "none", Command: []string{"x"}}, spec.Terminal{}); !errors.Is(err, spec.ErrNotFound) {
		t.Errorf("exec in nothing: %v", err)
	}
	if left, err := os.ReadDir(filepath.Join(b.cfg.RunDir, "fifo")); err != nil || len(left) != 0 {
		t.Errorf("pipes left: %v %v", left, err)
	}
}

func TestExecTerminal(t *testing.T) {
	b := newBench(t)
	r := request(b.app(), 1, "serve", "8080")
	b.run(r)
	resize := make(chan [2]uint16, 1)
	resize <- [2]uint16{33, 77}
	in, hold := io.Pipe()
	defer hold.Close()
	var out bytes.Buffer
	code, err := b.Exec(b.ctx, spec.ExecRequest{Replica: r.ID, Command: []string{"/testapp", "winsize", "33", "77"}, TTY: true, Rows: 10, Cols: 20},
		spec.Terminal{Stdin: in, Stdout: &out, Resize: resize})
	if err != nil || code != 0 || !strings.Contains(out.String(), "size 33 77") {
		t.Errorf("code %d, %q, %v", code, out.String(), err)
	}
}

// TestExecTimeout: what the command started is gone with it: children, and a
// grandchild in a session of its own whose parent has ended.
func TestExecTimeout(t *testing.T) {
	b := newBench(t)
	r := request(b.app(), 1, "serve", "8080")
	b.run(r)
	b.awaitReady(r)
	for _, command := range []string{"spawn 3", "orphan 1h", "stubborn"} {
		before := b.cgroup.pids(r.ID)
		ctx, cancel := context.WithCancel(b.ctx)
		ready := &signalWriter{want: "ready", seen: cancel} // time is up once all of it runs
		_, err := b.Exec(ctx, spec.ExecRequest{Replica: r.ID, Command: append([]string{"/testapp"}, strings.Fields(command)...)}, spec.Terminal{Stdout: ready})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", command, err)
		}
		if after := b.cgroup.pids(r.ID); len(after) != len(before) {
			t.Errorf("%s: processes %v, before %v", command, after, before)
		}
		cancel()
	}
	if i := b.instance(r.ID); i.Phase != spec.PhaseRunning {
		t.Errorf("the container itself was hit: %+v", i)
	}
	ctx, cancel := context.WithTimeout(b.ctx, 200*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := b.Exec(ctx, spec.ExecRequest{Replica: r.ID, Command: []string{"/testapp", "sleep", "1h"}}, spec.Terminal{})
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 5*time.Second {
		t.Errorf("after %s: %v", time.Since(start), err)
	}
	if left, err := os.ReadDir(filepath.Join(b.cfg.RunDir, "fifo")); err != nil || len(left) != 0 {
		t.Errorf("pipes left: %v %v", left, err)
	}
}

// signalWriter calls seen when it was written want. With several processes
// writing, it waits for the last line only as long as they take to start.
type signalWriter struct {
	want string
	seen func()
}

func (s *signalWriter) Write(p []byte) (int, error) {
	if strings.Contains(string(p), s.want) {
		s.seen()
	}
	return len(p), nil
}

// TestExecLeavesDaemon: a command that ends normally may leave a process, and
// isn't waited for because of it.
func TestExecLeavesDaemon(t *testing.T) {
	b := newBench(t)
	r := request(b.app(), 1, "serve", "8080")
	b.run(r)
	start := time.Now()
	code, _, _ := b.exec(r.ID, "", "/testapp", "orphan", "1h", "child")
	if code != 0 || time.Since(start) > 10*time.Second {
		t.Errorf("code %d after %s", code, time.Since(start))
	}
	if pids := b.cgroup.pids(r.ID); len(pids) != 2 {
		t.Errorf("processes %v", pids)
	}
}
