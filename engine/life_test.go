package engine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"dunnage/spec"
)

func TestLife(t *testing.T) {
	b := newBench(t)
	r := request(b.app(), 1, "serve", "8080")
	b.create(r)
	if i := b.instance(r.ID); i.Phase != spec.PhaseCreated || i.ReplicaKey != r.ReplicaKey || i.Image != r.Image.Pinned() {
		t.Fatalf("created: %+v", i)
	}
	start := time.Now()
	if err := b.Start(b.ctx, r.ID); err != nil {
		t.Fatal(err)
	}
	t.Logf("start took %s", time.Since(start))
	i := b.instance(r.ID)
	if i.Phase != spec.PhaseRunning || i.Pid == 0 || time.Since(i.StartedAt) > time.Minute {
		t.Fatalf("started: %+v", i)
	}
	if err := b.Start(b.ctx, r.ID); err != nil {
		t.Fatal(err)
	}
	if again := b.instance(r.ID); again.Pid != i.Pid {
		t.Fatalf("a second start made a second process: %+v", again)
	}
	b.awaitReady(r)
	if err := b.Signal(b.ctx, r.ID, ""); err != nil {
		t.Fatal(err)
	}
	i = b.awaitPhase(r.ID, spec.PhaseExited)
	if i.ExitCode != 0 || i.ExitedAt.IsZero() {
		t.Fatalf("exited: %+v", i)
	}
	if err := b.Start(b.ctx, r.ID); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := b.Remove(b.ctx, r.ID); err != nil {
			t.Fatal(err)
		}
	}
	if list, err := b.Instances(b.ctx); err != nil || len(list) != 0 {
		t.Fatalf("left: %v %v", list, err)
	}
}

// TestShimKilled: a dead shim is not an exit. Until its process is gone, the
// replica is lost and can't be started.
func TestShimKilled(t *testing.T) {
	b := newBench(t)
	r := request(b.app(), 1, "serve", "8080")
	b.run(r)
	pid := b.instance(r.ID).Pid
	for deadline := time.Now().Add(10 * time.Second); isRuncInit(pid); time.Sleep(time.Millisecond) { // else nothing has run yet
		if time.Now().After(deadline) {
			t.Fatal("the program isn't executed")
		}
	}
	if err := syscall.Kill(b.daemon.Shim(r.ID), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for alive := true; alive; {
		i := b.instance(r.ID)
		alive = syscall.Kill(pid, 0) == nil && !zombie(pid)
		if i.Phase == spec.PhaseExited && alive && len(b.cgroup.pids(r.ID)) > 0 {
			t.Fatalf("exited while process %d lives: %+v", pid, i)
		}
	}
	i := b.awaitPhase(r.ID, spec.PhaseExited)
	if i.ExitCode != unknownExit || i.ExitedAt.IsZero() {
		t.Errorf("%+v", i)
	}
	if err := b.Start(b.ctx, r.ID); err != nil {
		t.Fatal(err)
	}
	if i := b.instance(r.ID); i.Phase != spec.PhaseRunning || i.Pid == pid {
		t.Errorf("%+v", i)
	}
}

func zombie(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && strings.Contains(string(b), ") Z ")
}

// TestUnowned: a process that nobody owns is lost, is not doubled, and Remove ends it.
func TestUnowned(t *testing.T) {
	b := newBench(t)
	r := request(b.app(), 1, "stubborn")
	b.create(r)
	if err := b.started.put(r.ID, startRecord{Pid: 1 << 22, Started: time.Now()}); err != nil {
		t.Fatal(err)
	}
	group := filepath.Join(b.cgroup.procs, r.ID)
	if err := os.MkdirAll(group, 0o755); err != nil {
		t.Fatal(err)
	}
	pid := b.unowned(group)
	if i := b.instance(r.ID); i.Phase != spec.PhaseLost || i.Pid != pid {
		t.Fatalf("%+v, process %d", i, pid)
	}
	if err := b.Start(b.ctx, r.ID); !errors.Is(err, spec.ErrUnavailable) {
		t.Errorf("start while lost: %v", err)
	}
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	changes := b.Changes(ctx)
	<-changes // connected
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for b.instance(r.ID).Phase == spec.PhaseLost {
		<-changes
	}
	pid = b.unowned(group)
	if err := b.Remove(b.ctx, r.ID); err != nil {
		t.Fatal(err)
	}
	if !zombie(pid) && syscall.Kill(pid, 0) == nil {
		t.Error("the unowned process lives on")
	}
}

// TestAdoption: another engine on the same containerd finds the same processes.
func TestAdoption(t *testing.T) {
	b := newBench(t)
	r := request(b.app(), 1, "tick", "10ms")
	b.run(r)
	before := b.instance(r.ID)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b.connect()
	if after := b.instance(r.ID); after.Pid != before.Pid || !after.StartedAt.Equal(before.StartedAt) || after.Phase != spec.PhaseRunning {
		t.Errorf("before %+v\nafter  %+v", before, after)
	}
	// Without its record, the start is known from the kernel.
	if err := b.started.remove(r.ID); err != nil {
		t.Fatal(err)
	}
	if after := b.instance(r.ID); after.StartedAt.Sub(before.StartedAt).Abs() > 500*time.Millisecond {
		t.Errorf("started %s, the kernel says %s", before.StartedAt, after.StartedAt)
	}
}

// TestContainerdKilled: containers run on, calls say that containerd is away,
// and after its return a change is told and everything is as it was.
func TestContainerdKilled(t *testing.T) {
	b := newBench(t)
	r := request(b.app(), 1, "tick", "10ms")
	b.run(r)
	before := b.instance(r.ID)
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	changes := b.Changes(ctx)
	<-changes
	b.daemon.Kill()
	if _, err := b.Instances(b.ctx); !errors.Is(err, spec.ErrUnavailable) {
		t.Errorf("instances without containerd: %v", err)
	}
	size := b.logSize(r)
	for b.logSize(r) == size { // logging needs no containerd
		time.Sleep(10 * time.Millisecond)
	}
	for len(changes) > 0 {
		<-changes
	}
	b.daemon.Start()
	<-changes
	if after := b.instance(r.ID); after.Pid != before.Pid || after.Phase != spec.PhaseRunning {
		t.Errorf("before %+v\nafter  %+v", before, after)
	}
}

// TestContainerdStopped: a containerd that hangs can't hang a call.
func TestContainerdStopped(t *testing.T) {
	b := newBench(t)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b.cfg.RPCTimeout = 300 * time.Millisecond
	b.connect()
	b.daemon.Signal(syscall.SIGSTOP)
	defer b.daemon.Signal(syscall.SIGCONT)
	start := time.Now()
	_, err := b.Instances(b.ctx)
	if !errors.Is(err, spec.ErrUnavailable) || time.Since(start) > 10*time.Second {
		t.Errorf("after %s: %v", time.Since(start), err)
	}
	t.Log(err)
}

// TestSignalWithoutContainerd: a signal needs neither containerd nor runc, but
// for a process that left its group.
func TestSignalWithoutContainerd(t *testing.T) {
	b := newBench(t)
	image := b.app()
	near, far := request(image, 1, "serve", "8080"), request(image, 2, "serve", "8080")
	for _, r := range []spec.CreateRequest{near, far} {
		b.run(r)
		b.awaitReady(r)
	}
	b.daemon.Signal(syscall.SIGSTOP)
	err := b.Signal(b.ctx, near.ID, "SIGTERM")
	b.daemon.Signal(syscall.SIGCONT)
	if err != nil {
		t.Error(err)
	}
	away := filepath.Join(b.cgroup.procs, far.ID, "away")
	if err := os.Mkdir(away, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(away, "cgroup.procs"), []byte(strconv.Itoa(b.instance(far.ID).Pid)), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := b.Signal(b.ctx, far.ID, "SIGTERM"); err != nil {
		t.Error(err)
	}
	for _, r := range []spec.CreateRequest{near, far} {
		if i := b.awaitPhase(r.ID, spec.PhaseExited); i.ExitCode != 0 {
			t.Errorf("%+v", i)
		}
	}
	if err := os.Remove(away); err != nil {
		t.Fatal(err)
	}
}

// TestHalfMade: what a crash in Create or Remove leaves is no obstacle.
func TestHalfMade(t *testing.T) {
	b := newBench(t)
	r := request(b.app(), 1, "serve", "8080")
	image, err := b.storedByDigest(b.ctx, r.Image.Digest)
	if err != nil {
		t.Fatal(err)
	}
	snapshots := b.client.SnapshotService(b.cfg.Snapshotter)
	if _, err := snapshots.Prepare(b.ctx, r.ID, image.chain); err != nil { // a snapshot without a container
		t.Fatal(err)
	}
	b.run(r)
	if err := b.Remove(b.ctx, r.ID); err != nil {
		t.Fatal(err)
	}
	b.create(r)
	if err := snapshots.Remove(b.ctx, r.ID); err != nil { // a container without a snapshot
		t.Fatal(err)
	}
	if err := b.Remove(b.ctx, r.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := snapshots.Prepare(b.ctx, r.ID, image.chain); err != nil {
		t.Fatal(err)
	}
	if err := b.Remove(b.ctx, r.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := snapshots.Stat(b.ctx, r.ID); !isNotFound(err) {
		t.Errorf("the snapshot is left: %v", err)
	}
}

// TestLostLayer: a container whose writable layer somebody removed starts on a
// new one, also with an engine that hasn't met its image yet.
func TestLostLayer(t *testing.T) {
	b := newBench(t)
	r := request(b.app(), 1, "serve", "8080")
	b.run(r)
	b.awaitReady(r)
	for _, lost := range []string{"while it runs", "before its start"} {
		if lost == "before its start" {
			if err := b.Signal(b.ctx, r.ID, "SIGKILL"); err != nil {
				t.Fatal(err)
			}
			b.awaitPhase(r.ID, spec.PhaseExited)
			b.connect()
		}
		if err := b.client.SnapshotService(b.cfg.Snapshotter).Remove(b.ctx, r.ID); err != nil && !isNotFound(err) {
			t.Fatal(err)
		}
		if err := b.Start(b.ctx, r.ID); err != nil {
			t.Fatalf("lost %s: %v", lost, err)
		}
		if i := b.instance(r.ID); i.Phase != spec.PhaseRunning {
			t.Errorf("lost %s: %+v", lost, i)
		}
	}
	if code, _, stderr := b.exec(r.ID, "", "/testapp", "write", "/new", "x"); code != 0 {
		t.Errorf("write to the new layer: %d, %s", code, stderr)
	}
	if err := b.Remove(b.ctx, r.ID); err != nil {
		t.Fatal(err)
	}
}

// TestCreatedTask: an agent killed between making and starting a task.
func TestCreatedTask(t *testing.T) {
	b := newBench(t)
	r := request(b.app(), 1, "serve", "8080")
	b.create(r)
	c, err := b.client.LoadContainer(b.ctx, r.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.NewTask(b.ctx, nullIO); err != nil {
		t.Fatal(err)
	}
	if i := b.instance(r.ID); i.Phase != spec.PhaseCreated {
		t.Fatalf("%+v", i)
	}
	if err := b.Start(b.ctx, r.ID); err != nil {
		t.Fatal(err)
	}
	if i := b.instance(r.ID); i.Phase != spec.PhaseRunning {
		t.Fatalf("%+v", i)
	}
	b.awaitReady(r)
}

func TestStubbornIsRemoved(t *testing.T) {
	b := newBench(t)
	r := request(b.app(), 1, "spawn", "5")
	b.run(r)
	b.awaitReady(r)
	pids := b.cgroup.pids(r.ID)
	if len(pids) != 6 {
		t.Fatalf("processes: %v", pids)
	}
	var wg sync.WaitGroup
	for range 3 { // at once
		wg.Go(func() {
			if err := b.Remove(b.ctx, r.ID); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, pid := range pids {
		if syscall.Kill(pid, 0) == nil && !zombie(pid) {
			t.Errorf("process %d lives on", pid)
		}
	}
	if shims := b.daemon.Shims(); len(shims) != 0 {
		t.Errorf("shims %v", shims)
	}
}

// TestRemoveAtExit: a removal that meets the exit is a removal.
func TestRemoveAtExit(t *testing.T) {
	b := newBench(t)
	image := b.app()
	for n := range 8 {
		r := request(image, n+1, "exit", "0", strconv.Itoa(n*5)+"ms")
		b.run(r)
		if err := b.Remove(b.ctx, r.ID); err != nil {
			t.Error(err)
		}
	}
	if list, err := b.Instances(b.ctx); err != nil || len(list) != 0 {
		t.Errorf("left: %v %v", list, err)
	}
	if shims := b.daemon.Shims(); len(shims) != 0 {
		t.Errorf("shims %v", shims)
	}
}

func (b *bench) logSize(r spec.CreateRequest) int64 {
	b.t.Helper()
	info, err := os.Stat(b.LogPath(r.ReplicaKey))
	if err != nil {
		b.t.Fatal(err)
	}
	return info.Size()
}

// TestCloseLeavesNothing: every goroutine of an engine ends with it.
func TestCloseLeavesNothing(t *testing.T) {
	b := newBench(t)
	r := request(b.app(), 1, "serve", "8080")
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	before := goleak.IgnoreCurrent()
	b.connect()
	b.run(r)
	changes := b.Changes(b.ctx)
	<-changes
	b.exec(r.ID, "", "/testapp", "id")
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	for range changes { // closed, though its context lives
	}
	goleak.VerifyNone(t, before)
}
