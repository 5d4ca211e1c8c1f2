package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"dunnage/internal/testenv"
	"dunnage/spec"
)

func managedConfigFor(t *testing.T) ManagedConfig {
	t.Helper()
	testenv.Root(t)
	dir, err := os.MkdirTemp("", "dm") // short: the socket's path has a limit
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return ManagedConfig{StateDir: dir + "/lib", RunDir: dir + "/run"}
}

// What would block whoever opens it, in the place of a file of the managed
// containerd, is an error.
func TestManagedFilesThatAreNone(t *testing.T) {
	dir := t.TempDir()
	m := &Managed{cfg: ManagedConfig{StateDir: dir + "/lib", RunDir: dir + "/run"}}
	if err := m.writeConfig(); err != nil {
		t.Fatal(err)
	}
	for path, open := range map[string]func() error{
		m.configFile(): m.writeConfig,
		m.LogFile():    func() error { _, err := m.openLog(); return err },
	} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		if err := syscall.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- open() }()
		select {
		case err := <-done:
			if err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("%s: %v", path, err)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: it hangs", path)
		}
	}
}

func TestManaged(t *testing.T) {
	cfg := managedConfigFor(t)
	ctx := testenv.Context(t)
	t.Setenv("NOTIFY_SOCKET", cfg.RunDir+"/notify")
	start := time.Now()
	address, m, err := Dial(ctx, ModeManaged, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Logf("answers after %s", time.Since(start))

	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", m.Pid()))
	if err != nil || strings.Contains(string(environ), "NOTIFY_SOCKET") {
		t.Errorf("containerd would tell the service manager that it is ready: %q, %v", environ, err)
	}

	// Another agent adopts it, whether or not the system has one, also by
	// address, and starts it again when it dies.
	_, second, err := Dial(ctx, ModeAuto, cfg)
	if err != nil || second.Pid() != m.Pid() || second.Pid() == 0 {
		t.Fatalf("%+v %v", second, err)
	}
	if _, none, err := Dial(ctx, address, cfg); err != nil || none != nil {
		t.Errorf("by address: %v %v", none, err)
	}
	runCtx, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	var deaths []string
	go func() { defer close(done); second.Run(runCtx, func(text string) { deaths = append(deaths, text) }) }()
	old := m.Pid()
	for range 2 {
		if err := syscall.Kill(second.Pid(), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		for second.Pid() == old || second.Pid() == 0 {
			if ctx.Err() != nil {
				t.Fatal("containerd is not started again")
			}
			time.Sleep(5 * time.Millisecond)
		}
		old = second.Pid()
	}
	if err := syscall.Kill(old, syscall.SIGSTOP); err != nil { // it hangs
		t.Fatal(err)
	}
	if err := second.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	for second.Pid() == old || second.Pid() == 0 {
		if ctx.Err() != nil {
			t.Fatal("a containerd that hung is not started again")
		}
		time.Sleep(5 * time.Millisecond)
	}
	old = second.Pid()
	stop()
	<-done
	// What Restart ended isn't told as a death.
	if len(deaths) != 2 || !strings.Contains(deaths[0], "an earlier agent started it") || !strings.Contains(deaths[1], "died (signal: killed); it is started again in 200ms; its log is "+m.LogFile()) {
		t.Errorf("told of deaths: %q", deaths)
	}
	found, err := FindManaged(ctx, cfg)
	if err != nil || found == nil || found.Pid() != old {
		t.Fatalf("found: %+v %v", found, err)
	}
	if n, err := found.Containers(ctx); n != 0 || err != nil {
		t.Errorf("%d containers, %v", n, err)
	}
	if none, err := FindManaged(ctx, ManagedConfig{RunDir: cfg.StateDir}); none != nil || err != nil {
		t.Errorf("found where none is: %+v, %v", none, err)
	}
	if pid, err := listener(ctx, address); err != nil || pid != old {
		t.Errorf("the end of its supervisor touched containerd: %d %v", pid, err)
	}
	m.setPid(old)
}

// TestManagedSocketLost: a containerd whose socket somebody has removed is ended and
// started again, by who runs it, and by an agent that finds it so at its start.
func TestManagedSocketLost(t *testing.T) {
	cfg := managedConfigFor(t)
	ctx := testenv.Context(t)
	_, m, err := Dial(ctx, ModeManaged, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	old := m.Pid()
	if err := os.Remove(m.Address()); err != nil {
		t.Fatal(err)
	}
	if found, err := FindManaged(ctx, cfg); found != nil || err == nil || !strings.Contains(err.Error(), fmt.Sprintf("(process %d) lives", old)) {
		t.Errorf("found: %+v, %v", found, err)
	}
	_, next, err := Dial(ctx, ModeManaged, cfg)
	if err != nil {
		_ = syscall.Kill(old, syscall.SIGKILL)
		t.Fatal(err)
	}
	m = next
	if m.Pid() == old || !waitGone(ctx, old) {
		t.Errorf("process %d, then %d", old, m.Pid())
	}

	old = m.Pid()
	runCtx, stop := context.WithCancel(ctx)
	told, done := make(chan string, 10), make(chan struct{})
	go func() { defer close(done); m.Run(runCtx, func(text string) { told <- text }) }()
	defer func() { stop(); <-done }()
	if err := errors.Join(os.Remove(m.configFile()), os.Remove(m.Address()), syscall.Mkfifo(m.Address(), 0o600)); err != nil {
		t.Fatal(err)
	}
	select {
	case text := <-told:
		if !strings.Contains(text, "somebody removed containerd's socket "+m.Address()) || !strings.Contains(text, "it is started again in 100ms") {
			t.Errorf("told: %s", text)
		}
	case <-ctx.Done():
		t.Fatal("nobody notices")
	}
	for m.Pid() == 0 || !answers(ctx, m.Address()) {
		if ctx.Err() != nil {
			t.Fatal("containerd is not started again")
		}
		time.Sleep(5 * time.Millisecond)
	}
	if pid := m.Pid(); pid == old {
		t.Errorf("it is process %d as before", pid)
	}
}

func TestDialFailures(t *testing.T) {
	cfg := managedConfigFor(t)
	cfg.Binary = "containerd-that-is-not-there"
	for mode, says := range map[string]string{
		ModeManaged: "apt install containerd",
		"relative":  "absolute path",
		"/nowhere":  "--containerd managed",
	} {
		_, _, err := Dial(testenv.Context(t), mode, cfg)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", mode, err)
		}
	}
	cfg.Binary = "false"
	if _, _, err := Dial(testenv.Context(t), ModeManaged, cfg); !errors.Is(err, spec.ErrUnavailable) || !strings.Contains(err.Error(), "containerd.log") {
		t.Errorf("a containerd that ends at once: %v", err)
	}
}

// A link in the place of containerd's log is put aside: nothing is written where it leads.
func TestManagedLogFollowsNoLink(t *testing.T) {
	dir := t.TempDir()
	m := &Managed{cfg: ManagedConfig{StateDir: dir + "/lib", RunDir: dir + "/run"}}
	theirs := filepath.Join(dir, "theirs")
	for _, err := range []error{m.writeConfig(), os.WriteFile(theirs, []byte("x"), 0o600), os.Symlink(theirs, m.LogFile())} {
		if err != nil {
			t.Fatal(err)
		}
	}
	f, err := m.openLog()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("ours"); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(theirs); err != nil || string(b) != "x" {
		t.Errorf("others' file: %q, %v", b, err)
	}
	if b, err := os.ReadFile(m.LogFile()); err != nil || string(b) != "ours" {
		t.Errorf("the log: %q, %v", b, err)
	}
}
