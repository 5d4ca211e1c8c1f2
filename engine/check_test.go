package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dunnage/spec"
)

// checked runs a replica that has a health check.
func (b *bench) checked(args ...string) spec.CreateRequest {
	b.t.Helper()
	r := request(b.app(), 1, args...)
	r.Container.Probes = []spec.Probe{{Kind: spec.ProbeExec}}
	b.run(r)
	b.awaitReady(r)
	return r
}

func (b *bench) check(ctx context.Context, id string, command ...string) (int, string, error) {
	var out bytes.Buffer
	code, err := b.Check(ctx, spec.ExecRequest{Replica: id, Command: command}, &out)
	return code, out.String(), err
}

// passes runs a check that must answer, and returns what it wrote.
func (b *bench) passes(id string, want int, command ...string) string {
	b.t.Helper()
	code, out, err := b.check(b.ctx, id, command...)
	if err != nil || code != want {
		b.t.Fatalf("%q: code %d, want %d, %v: %s", command, code, want, err, out)
	}
	return out
}

// probers lists the replica's processes that are a prober.
func (b *bench) proberPids(id string) []int {
	return slices.DeleteFunc(b.cgroup.pids(id), func(pid int) bool {
		cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		return err != nil || !strings.HasPrefix(string(cmdline), initTarget+"\x00probe")
	})
}

func (b *bench) oneProber(id string) int {
	b.t.Helper()
	pids := b.proberPids(id)
	if len(pids) != 1 {
		b.t.Fatalf("probers: %v", pids)
	}
	return pids[0]
}

// zombies counts the children of pid that nobody has reaped.
func zombies(t *testing.T, pid int) (n int) {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range stats {
		stat, err := os.ReadFile(name)
		if err == nil && strings.Contains(string(stat), fmt.Sprintf(") Z %d ", pid)) {
			n++
		}
	}
	return n
}

// TestCheckIsLikeExec: a command can't tell who runs it.
func TestCheckIsLikeExec(t *testing.T) {
	b := newBench(t)
	r := request(b.app(), 1, "serve", "8080")
	r.Container.Probes = []spec.Probe{{Kind: spec.ProbeExec}}
	r.Container.User, r.Container.WorkingDir, r.Container.Environment = "app", "/tmp", []string{"A=b"}
	b.run(r)
	b.awaitReady(r)
	for _, command := range [][]string{{"id"}, {"env"}, {"cat", "/proc/self/cgroup", "/proc/self/limits", "/proc/self/mounts", "/proc/self/oom_score_adj"}, {"cat", "/proc/self/status"}} {
		command = append([]string{"/testapp"}, command...)
		_, plain, _ := b.exec(r.ID, "", command...)
		if got, want := comparable(b.passes(r.ID, 0, command...)), comparable(plain); got != want {
			t.Errorf("%q:\n%s\nexec:\n%s", command, got, want)
		}
	}
	pid := b.oneProber(r.ID)
	for _, ns := range []string{"mnt", "pid", "net", "ipc", "uts", "cgroup", "user"} {
		own, err1 := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", b.instance(r.ID).Pid, ns))
		its, err2 := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, ns))
		if own != its || errors.Join(err1, err2) != nil {
			t.Errorf("namespace %s: %s, the container's is %s", ns, its, own)
		}
	}
}

// comparable keeps what two runs of a command have in common: of
// /proc/self/status who may do what.
func comparable(out string) string {
	var kept []string
	status := strings.HasPrefix(out, "Name:")
	for line := range strings.Lines(out) {
		name, _, _ := strings.Cut(line, ":")
		confines := slices.Contains([]string{"Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters", "SigBlk", "SigIgn"}, name)
		if (!status || confines) && !strings.HasPrefix(line, execMark) {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

func TestCheckAnswers(t *testing.T) {
	b := newBench(t)
	r := b.checked("serve", "8080")
	for _, c := range []struct {
		code    int
		output  string
		command []string
	}{
		{42, "", []string{"/testapp", "exit", "42"}},
		{127, "no program nothing in the PATH", []string{"nothing"}},
		{127, "no such file", []string{"/nothing"}},
		{126, "permission denied", []string{"/etc/passwd"}},
	} {
		if out := b.passes(r.ID, c.code, c.command...); !strings.Contains(out, c.output) {
			t.Errorf("%q: %q", c.command, out)
		}
	}
	pid := b.oneProber(r.ID)
	// A gigabyte, of which the end is kept.
	out := b.passes(r.ID, 0, "/testapp", "log", "20000", "50000")
	if len(out) != 4096 || !strings.HasSuffix(out, "xxx\n") {
		t.Errorf("%d bytes: %.20q", len(out), out)
	}
	if b.oneProber(r.ID) != pid {
		t.Error("it took more than one prober")
	}
}

// TestCheckLeavesNothing: what a check started ends with it, also what left its
// session, and nobody's zombie is left to the container's first process.
func TestCheckLeavesNothing(t *testing.T) {
	b := newBench(t)
	r := b.checked("serve", "8080")
	b.passes(r.ID, 0, "/testapp", "id")
	prober, own := b.oneProber(r.ID), b.instance(r.ID).Pid
	for _, c := range []struct {
		name    string
		limit   time.Duration
		command []string
	}{
		{"ends and leaves a daemon", time.Minute, []string{"/testapp", "orphan", "1h", "child"}},
		{"children", time.Second, []string{"/testapp", "spawn", "3"}},
		{"a daemon, and doesn't end", time.Second, []string{"/testapp", "orphan", "1h"}},
		{"ignores signals", time.Second, []string{"/testapp", "stubborn"}},
	} {
		ctx, cancel := context.WithTimeout(b.ctx, c.limit)
		_, _, err := b.check(ctx, r.ID, c.command...)
		cancel()
		if (err == nil) != (c.limit == time.Minute) || err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", c.name, err)
		}
		if pids := b.cgroup.pids(r.ID); len(pids) != 2 || b.oneProber(r.ID) != prober {
			t.Errorf("%s: processes %v, want %d and prober %d", c.name, pids, own, prober)
		}
		if n := zombies(t, own) + zombies(t, prober); n > 0 {
			t.Errorf("%s: %d zombies", c.name, n)
		}
	}
}

// TestCheckCancelled: nobody waits for the answer, and nothing goes on.
func TestCheckCancelled(t *testing.T) {
	b := newBench(t)
	r := b.checked("serve", "8080")
	b.passes(r.ID, 0, "/testapp", "id")
	ctx, cancel := context.WithCancel(b.ctx)
	ended := make(chan error, 1)
	go func() {
		_, _, err := b.check(ctx, r.ID, "/testapp", "orphan", "1h")
		ended <- err
	}()
	b.awaitProcesses(r.ID, 4) // its own, prober, orphan, and the daemon in a session of its own
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if pids := b.cgroup.pids(r.ID); len(pids) != 1 {
		t.Errorf("processes %v", pids)
	}
	if n := zombies(t, b.instance(r.ID).Pid); n > 0 {
		t.Errorf("%d zombies", n)
	}
}

func (b *bench) awaitProcesses(id string, n int) {
	b.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); len(b.cgroup.pids(id)) != n; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.t.Fatalf("processes %v, want %d", b.cgroup.pids(id), n)
		}
	}
}

// TestCheckWhileAnotherRuns: one slow check takes no time from another.
func TestCheckWhileAnotherRuns(t *testing.T) {
	b := newBench(t)
	r := b.checked("serve", "8080")
	b.passes(r.ID, 0, "/testapp", "id")
	ctx, cancel := context.WithCancel(b.ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _, _ = b.check(ctx, r.ID, "/testapp", "sleep", "1h")
	}()
	b.awaitProcesses(r.ID, 3)
	b.passes(r.ID, 3, "/testapp", "exit", "3")
	cancel()
	<-ended
}

// TestProberDies: the next check has another one, and the check that it was
// killed in is run again.
func TestProberDies(t *testing.T) {
	b := newBench(t)
	r := b.checked("serve", "8080")
	b.passes(r.ID, 0, "/testapp", "id")
	first := b.oneProber(r.ID)
	kill(t, first)
	b.passes(r.ID, 0, "/testapp", "id")
	second := b.oneProber(r.ID)
	if first == second {
		t.Fatal("it lives")
	}
	code := make(chan int)
	go func() {
		c, _, _ := b.check(b.ctx, r.ID, "/testapp", "exit", "7", "2s")
		code <- c
	}()
	b.awaitProcesses(r.ID, 3)
	kill(t, second)
	if c := <-code; c != 7 {
		t.Errorf("code %d", c)
	}
}

func kill(t *testing.T, pid int) {
	t.Helper()
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// TestCheckWithoutProber: a container that has no dunnage-init, for example one
// of an earlier version, is checked all the same, and that is told once.
func TestCheckWithoutProber(t *testing.T) {
	b := newBench(t)
	var log bytes.Buffer
	b.cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	b.connect()
	r := request(b.app(), 1, "serve", "8080")
	b.run(r)
	b.awaitReady(r)
	for range 3 {
		b.passes(r.ID, 5, "/testapp", "exit", "5")
	}
	if n := strings.Count(log.String(), "the prober doesn't work"); n != 1 {
		t.Errorf("told %d times:\n%s", n, log.String())
	}
	if left, err := os.ReadDir(filepath.Join(b.cfg.RunDir, "fifo")); err != nil || len(left) != 0 {
		t.Errorf("pipes left: %v %v", left, err)
	}
}

// TestProberAndTheAgent: an agent that was killed leaves a prober, which the
// next agent replaces; one that ends takes it along.
func TestProberAndTheAgent(t *testing.T) {
	b := newBench(t)
	r := b.checked("serve", "8080")
	b.passes(r.ID, 0, "/testapp", "id")
	first := b.oneProber(r.ID)
	b.connect() // without closing the one before
	b.passes(r.ID, 0, "/testapp", "id")
	if b.oneProber(r.ID) == first {
		t.Error("the next agent uses pipes that it doesn't have")
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b.awaitProcesses(r.ID, 1)
	b.connect()
	b.passes(r.ID, 0, "/testapp", "id")
	b.oneProber(r.ID)
	if err := b.Remove(b.ctx, r.ID); err != nil {
		t.Fatal(err)
	}
	if pids := b.cgroup.pids(r.ID); len(pids) != 0 {
		t.Errorf("processes left: %v", pids)
	}
}

// TestCheckWithoutContainerd: checks go on while it is away, and with its
// return there is no second prober.
func TestCheckWithoutContainerd(t *testing.T) {
	b := newBench(t)
	r := b.checked("serve", "8080")
	b.passes(r.ID, 0, "/testapp", "id")
	pid := b.oneProber(r.ID)
	b.daemon.Kill()
	b.passes(r.ID, 9, "/testapp", "exit", "9")
	b.daemon.Start()
	b.passes(r.ID, 9, "/testapp", "exit", "9")
	if b.oneProber(r.ID) != pid {
		t.Error("another prober")
	}
	shim := b.daemon.Shim(r.ID)
	kill(t, shim)
	for deadline := time.Now().Add(20 * time.Second); unix.Kill(pid, 0) == nil && !isZombie(pid); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the prober outlives its shim")
		}
	}
}

func isZombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(stat), ") Z ")
}

// TestCheckAfterRestart: the prober of the process before isn't asked.
func TestCheckAfterRestart(t *testing.T) {
	b := newBench(t)
	r := b.checked("serve", "8080")
	b.passes(r.ID, 0, "/testapp", "id")
	if err := b.Signal(b.ctx, r.ID, "SIGKILL"); err != nil {
		t.Fatal(err)
	}
	b.awaitPhase(r.ID, spec.PhaseExited)
	if _, _, err := b.check(b.ctx, r.ID, "/testapp", "id"); err == nil {
		t.Error("a check of what doesn't run passes")
	}
	if err := b.Start(b.ctx, r.ID); err != nil {
		t.Fatal(err)
	}
	b.passes(r.ID, 0, "/testapp", "id")
	b.oneProber(r.ID)
}
