package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"

	"dunnage/internal/testenv"
	"dunnage/spec"
)

// TestKilledWhileStarting kills containerd at many moments of a start. After
// its return, one Start makes the one process and Remove leaves nothing.
func TestKilledWhileStarting(t *testing.T) {
	b := newBench(t)
	image := b.app()
	half := 0 // kills that left a shim without a task
	for n := range 12 {
		r := request(image, n+1, "serve", "8080")
		b.create(r)
		started := make(chan error, 1)
		go func() { started <- b.Start(b.ctx, r.ID) }()
		for len(b.daemon.ShimsOf(r.ID)) == 0 {
			if b.ctx.Err() != nil {
				t.Fatal("no shim")
			}
		}
		time.Sleep(time.Duration(n) * 5 * time.Millisecond) // the moment that this round is about
		b.daemon.Kill()
		err := <-started
		b.daemon.Start()
		b.awaitPing()
		status, errStatus := b.taskStatus(b.ctx, r.ID)
		if errStatus != nil {
			t.Fatal(errStatus)
		}
		i := b.instance(r.ID)
		t.Logf("killed %d ms after the shim came: task %s, replica %s, processes %v", 5*n, status, i.Phase, b.cgroup.pids(r.ID))
		if status == task.Status_UNKNOWN && len(b.daemon.ShimsOf(r.ID)) > 0 {
			half++
		}
		if i.Phase == spec.PhaseLost || err == nil && i.Phase != spec.PhaseRunning {
			t.Errorf("start said %v, and now: %+v", err, i)
		}
		if n%3 == 2 { // removed at once
			b.removesAll(r.ID)
			continue
		}
		b.startsOnce(r.ID)
		b.removesAll(r.ID)
	}
	if half == 0 {
		t.Error("no kill left a shim without a task: the test tries nothing")
	}
	t.Logf("%d kills left a shim without a task", half)
}

// TestStarterDies: whoever has a task made is gone at many moments of that, as an
// agent that is killed. The next Start isn't kept waiting by the shim that
// containerd has forgotten then.
func TestStarterDies(t *testing.T) {
	b := newBench(t)
	image := b.app()
	forgotten := 0
	for n := range 16 {
		r := request(image, n+1, "serve", "8080")
		b.create(r)
		b.untried.Delete(r.ID) // what another agent made
		c, err := b.client.ContainerService().Get(b.ctx, r.ID)
		if err != nil {
			t.Fatal(err)
		}
		ctx, die := context.WithCancel(b.ctx)
		given := make(chan error, 1)
		go func() {
			rootfs, err := b.writableLayer(ctx, c)
			if err == nil {
				_, err = b.makeTask(ctx, &tasks.CreateTaskRequest{ContainerID: r.ID, Rootfs: protoMounts(rootfs)})
			}
			given <- err
		}()
		for len(b.daemon.ShimsOf(r.ID)) == 0 {
			if b.ctx.Err() != nil {
				t.Fatal("no shim")
			}
		}
		time.Sleep(time.Duration(n) * 4 * time.Millisecond)
		die()
		if err := <-given; err != nil {
			forgotten++
		}
		if n%2 == 1 { // containerd is done with it
			for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
				if _, err := os.Lstat(b.bundle(r.ID)); err != nil {
					break
				}
			}
		}
		began := time.Now()
		b.startsOnce(r.ID)
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("gone %d ms after the shim came: the next start took %s", 4*n, took)
		}
		b.removesAll(r.ID)
	}
	if forgotten == 0 {
		t.Error("each task was made in time: the test tries nothing")
	}
}

// TestOrphans makes each kind of leftover on purpose, while containerd is away.
func TestOrphans(t *testing.T) {
	b := newBench(t)
	image := b.app()
	leftovers := []struct {
		name string
		make func(id string)
	}{
		{"a shim without a task", func(id string) { b.orphanShim(id) }},
		{"a shim that containerd can't find", func(id string) {
			b.orphanShim(id)
			if err := os.Remove(filepath.Join(b.bundle(id), "address")); err != nil {
				t.Fatal(err)
			}
		}},
		{"a bundle without a shim", func(id string) { b.orphanBundle(id) }},
	}
	for k, l := range leftovers {
		for n, start := range []bool{true, false} {
			r := request(image, 2*k+n+1, "serve", "8080")
			b.create(r)
			b.daemon.Kill()
			l.make(r.ID)
			b.daemon.Start()
			b.awaitPing()
			if i := b.instance(r.ID); i.Phase != spec.PhaseCreated {
				t.Errorf("%s: %+v", l.name, i)
			}
			if _, err := os.Stat(b.bundle(r.ID)); err != nil {
				t.Errorf("%s: containerd cleans up itself: %v", l.name, err)
			}
			t.Log(l.name)
			if start {
				b.startsOnce(r.ID)
			}
			b.removesAll(r.ID)
		}
	}
}

// TestSilentShim: a shim that hangs is no orphan; its process must live on.
func TestSilentShim(t *testing.T) {
	b := newBench(t)
	r := request(b.app(), 1, "serve", "8080")
	b.run(r)
	pid, shim := b.instance(r.ID).Pid, b.daemon.Shim(r.ID)
	testenv.Signal(t, shim, syscall.SIGSTOP)
	if err := b.Start(b.ctx, r.ID); !errors.Is(err, spec.ErrUnavailable) {
		t.Errorf("start: %v", err)
	}
	testenv.Signal(t, shim, syscall.SIGCONT)
	if i := b.awaitPhase(r.ID, spec.PhaseRunning); i.Pid != pid {
		t.Errorf("%+v, process %d", i, pid)
	}
}

// TestIsShim: only the shim of exactly this replica, namespace and containerd.
func TestIsShim(t *testing.T) {
	e := &Engine{cfg: Config{Address: "unix:///nowhere/c.sock", Namespace: "ns"}}
	for args, want := range map[string]bool{
		"/usr/bin/containerd-shim-runc-v2 -namespace ns -id a-1 -address /nowhere/c.sock":                   true,
		"/usr/bin/containerd-shim-runc-v2 -namespace ns -address /nowhere/c.sock -id a-1 start":             true,
		"/usr/bin/containerd-shim-runc-v2 -namespace ns -id a-11 -address /nowhere/c.sock":                  false,
		"/usr/bin/containerd-shim-runc-v2 -namespace ns2 -id a-1 -address /nowhere/c.sock":                  false,
		"/usr/bin/containerd-shim-runc-v2 -namespace ns -id a-1 -address /elsewhere/containerd.sock":        false,
		"/usr/bin/containerd-shim-runc-v2 -namespace ns -address /nowhere/c.sock -id":                       false,
		"/usr/bin/containerd-shim-runc-v2 -namespace ns -address /nowhere/c.sock -id a-1 -bundle /b delete": false,
		"/bin/cat -namespace ns -id a-1 -address /nowhere/c.sock":                                           false,
	} {
		cmd := exec.Command("sleep", "600")
		cmd.Path = "/bin/sh"
		cmd.Args = append(strings.Fields(args)[:1:1], append([]string{"-c", "read x", "sh"}, strings.Fields(args)[1:]...)...)
		in, err := cmd.StdinPipe() // its end ends the process
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for len(arguments(cmd.Process.Pid)) == 0 { // for a moment after Start
			time.Sleep(time.Millisecond)
		}
		if got := e.isShim(cmd.Process.Pid, "a-1"); got != want {
			t.Errorf("%s: %v", args, got)
		}
		if got := slices.Contains(e.shims("a-1"), cmd.Process.Pid); got != want {
			t.Errorf("listed: %s: %v", args, got)
		}
		_ = in.Close()
		_ = cmd.Wait() // read's failure is its end
	}
}

// awaitPing waits until the engine's connection to a new containerd is up.
func (b *bench) awaitPing() {
	b.t.Helper()
	for b.Ping(b.ctx) != nil {
		if b.ctx.Err() != nil {
			b.t.Fatal("containerd does not come back")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// startsOnce starts a replica; it then has one process, which gets ready.
func (b *bench) startsOnce(id string) {
	b.t.Helper()
	begin := time.Now()
	if err := b.Start(b.ctx, id); err != nil {
		b.t.Errorf("start: %v", err)
		return
	}
	b.t.Logf("started after %s", time.Since(begin).Round(time.Millisecond))
	if i := b.instance(id); i.Phase != spec.PhaseRunning || !slices.Equal(b.cgroup.pids(id), []int{i.Pid}) || len(b.daemon.ShimsOf(id)) != 1 {
		b.t.Errorf("%+v has processes %v and shims %v", i, b.cgroup.pids(id), b.daemon.ShimsOf(id))
	}
}

// removesAll removes a replica and looks for what is left of it.
func (b *bench) removesAll(id string) {
	b.t.Helper()
	if err := b.Remove(b.ctx, id); err != nil {
		b.t.Errorf("remove: %v", err)
	}
	if shims, pids := b.daemon.ShimsOf(id), b.cgroup.pids(id); len(shims)+len(pids) > 0 {
		b.t.Errorf("left: shims %v, processes %v", shims, pids)
	}
	for _, path := range []string{b.bundle(id), fmt.Sprintf("/run/containerd/runc/%s/%s", b.cfg.Namespace, id)} {
		// containerd may be cleaning up after the dead shim itself, beside us.
		for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			if _, err := os.Stat(path); err != nil {
				break
			}
		}
		if _, err := os.Stat(path); err == nil {
			b.t.Errorf("left: %s", path)
		}
	}
}

// orphanBundle makes the directory that containerd makes before a shim.
func (b *bench) orphanBundle(id string) {
	b.t.Helper()
	if err := os.MkdirAll(filepath.Join(b.bundle(id), "rootfs"), 0o711); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.bundle(id), "config.json"), []byte("{}"), 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// orphanShim makes bundle and shim as containerd does before it asks for a task.
func (b *bench) orphanShim(id string) {
	b.t.Helper()
	b.orphanBundle(id)
	log := filepath.Join(b.bundle(id), "log")
	if err := syscall.Mkfifo(log, 0o700); err != nil {
		b.t.Fatal(err)
	}
	cmd := exec.Command("containerd-shim-runc-v2", "-namespace", b.cfg.Namespace, "-address", b.daemon.Address,
		"-publish-binary", "/usr/bin/containerd", "-id", id, "start")
	cmd.Dir = b.bundle(id)
	cmd.Env = append(os.Environ(), "TTRPC_ADDRESS="+b.daemon.Address+".ttrpc")
	if out, err := cmd.CombinedOutput(); err != nil {
		b.t.Fatalf("start a shim: %v\n%s", err, out)
	}
	if len(b.daemon.ShimsOf(id)) != 1 {
		b.t.Fatalf("shims of %s: %v", id, b.daemon.ShimsOf(id))
	}
}
