package engine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"dunnage/spec"
)

// usage reads a counter of a replica's group: the first name that exists, of
// v1 or v2.
func (b *bench) usage(controller, id string, names ...string) uint64 {
	b.t.Helper()
	for _, name := range names {
		for _, dir := range []string{filepath.Join(cgroupRoot, controller), cgroupRoot} {
			if n, ok := readUint(filepath.Join(dir, b.cfg.Namespace, id, name)); ok {
				return n
			}
		}
	}
	b.t.Fatalf("no %v in the group of %s", names, id)
	return 0
}

func (b *bench) memoryLimit(id string) uint64 {
	return b.usage("memory", id, "memory.limit_in_bytes", "memory.max")
}

// cpuTime is what the replica has used of the CPU.
func (b *bench) cpuTime(id string) time.Duration {
	b.t.Helper()
	if ns, ok := readUint(filepath.Join(cgroupRoot, "cpuacct", b.cfg.Namespace, id, "cpuacct.usage")); ok {
		return time.Duration(ns)
	}
	stat, err := os.ReadFile(filepath.Join(cgroupRoot, b.cfg.Namespace, id, "cpu.stat"))
	if err != nil {
		b.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), "usage_usec ")
	us, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		b.t.Fatal(err)
	}
	return time.Duration(us) * time.Microsecond
}

// TestOOM: the kernel's kill is named as the reason, and what stays within the
// limit lives.
func TestOOM(t *testing.T) {
	b := newBench(t)
	image := b.app()
	small := request(image, 1, "alloc", "128")
	small.Limits = spec.Limits{Memory: 64 << 20}
	b.run(small)
	if i := b.awaitPhase(small.ID, spec.PhaseExited); !i.OOM || i.ExitCode != 137 {
		t.Errorf("after the limit: %+v", i)
	}
	large := request(image, 2, "alloc", "128")
	large.Limits = spec.Limits{Memory: 512 << 20}
	b.run(large)
	b.awaitReady(large)
	if i := b.instance(large.ID); i.Phase != spec.PhaseRunning || i.OOM {
		t.Errorf("within the limit: %+v", i)
	}
	if err := b.Signal(b.ctx, large.ID, "SIGKILL"); err != nil {
		t.Fatal(err)
	}
	if i := b.awaitPhase(large.ID, spec.PhaseExited); i.OOM {
		t.Errorf("killed by a signal, but said to be out of memory: %+v", i)
	}
}

// TestOOMOfAChild: a child that the kernel kills is counted, also by the next agent, and
// isn't the reason of a later end.
func TestOOMOfAChild(t *testing.T) {
	b := newBench(t)
	r := request(b.app(), 1, "sleep", "1h")
	r.Limits = spec.Limits{Memory: 64 << 20}
	b.run(r)
	b.awaitReady(r)
	if code, out, _ := b.exec(r.ID, "", "/testapp", "alloc", "128"); code != 137 {
		t.Fatalf("exit code %d: %s", code, out)
	}
	for deadline := time.Now().Add(20 * time.Second); b.instance(r.ID).OOMKills != 1; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("its child isn't counted: %+v", b.instance(r.ID))
		}
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b.connect()
	if i := b.instance(r.ID); i.OOMKills != 1 {
		t.Errorf("after a restart of the agent: %+v", i)
	}
	if err := b.Signal(b.ctx, r.ID, "SIGKILL"); err != nil {
		t.Fatal(err)
	}
	if i := b.awaitPhase(r.ID, spec.PhaseExited); i.OOM || i.ExitCode != 137 {
		t.Errorf("killed by a signal: %+v", i)
	}
}

// TestCPULimit: a busy replica uses its share. On a machine that others use
// too it may get less, so the best of several spans counts; more it must never.
func TestCPULimit(t *testing.T) {
	b := newBench(t)
	r := request(b.app(), 1, "burn", "2")
	r.Limits = spec.Limits{CPUs: 0.5}
	b.run(r)
	b.awaitReady(r)
	const span = 3 * time.Second
	best := 0.0
	for range 10 {
		before, begin := b.cpuTime(r.ID), time.Now()
		time.Sleep(span)
		used := float64(b.cpuTime(r.ID)-before) / float64(time.Since(begin))
		t.Logf("used %.3f CPUs", used)
		if used > 0.5*1.05 {
			t.Fatalf("used %.3f CPUs of 0.5", used)
		}
		if best = max(best, used); best >= 0.5*0.95 {
			return
		}
	}
	t.Errorf("used %.3f CPUs at best, want 0.5 within 5 %%", best)
}

// TestPidsLimit: a fork bomb stops at the limit, and the host goes on.
func TestPidsLimit(t *testing.T) {
	b := newBench(t)
	r := request(b.app(), 1, "forks", "1000")
	r.Limits = spec.Limits{Pids: 60}
	b.run(r)
	b.awaitReady(r)
	if n := b.usage("pids", r.ID, "pids.current"); n > 60 {
		t.Errorf("%d processes and threads under a limit of 60", n)
	}
	if err := b.Remove(b.ctx, r.ID); err != nil {
		t.Fatal(err)
	}
	if log := b.log(r.ReplicaKey); !strings.Contains(log, "refused:") {
		t.Errorf("nothing was refused:\n%s", log)
	}
}

// TestSizes: shm_size and the limit of open files are what a process sees.
func TestSizes(t *testing.T) {
	b := newBench(t)
	image := b.app()
	r := request(image, 1, "statfs", "/dev/shm")
	r.Container.ShmSize = 8 << 20
	if got := b.output(r); got != "8388608\n" {
		t.Errorf("/dev/shm has %q", got)
	}
	r = request(image, 2, "nofile")
	r.Container.Ulimits = []spec.Ulimit{{Name: "nofile", Soft: 1000, Hard: 2000}}
	if got := b.output(r); got != "2000\n" {
		t.Errorf("open files: %q", got)
	}
}

// TestLimitRunning changes the limits of a process that goes on: up, down, to
// what a restart keeps, and not below what it uses.
func TestLimitRunning(t *testing.T) {
	b := newBench(t)
	r := request(b.app(), 1, "alloc", "64")
	r.Limits = spec.Limits{Memory: 256 << 20, CPUs: 1, CPUShares: 512, CPUSet: "0", Pids: 100, MemoryLow: 16 << 20}
	b.run(r)
	b.awaitReady(r)
	first := b.instance(r.ID)
	if first.Limits != r.Limits.Fingerprint() || first.Limits == "" {
		t.Fatalf("limits in force are %q", first.Limits)
	}
	if n := b.memoryLimit(r.ID); n != 256<<20 {
		t.Fatalf("memory limit %d", n)
	}
	for _, l := range []spec.Limits{
		{Memory: 512 << 20, CPUs: 0.004, Pids: 50},
		{Memory: 128 << 20, MemorySwap: 256 << 20, CPUSet: "0"},
	} {
		if err := b.Limit(b.ctx, r.ID, l); err != nil {
			t.Fatal(err)
		}
		if n := b.memoryLimit(r.ID); n != uint64(l.Memory) {
			t.Errorf("memory limit %d, want %d", n, l.Memory)
		}
		pids := l.Pids
		if pids == 0 {
			pids = pidsLimit
		}
		if n := b.usage("pids", r.ID, "pids.max"); n != uint64(pids) {
			t.Errorf("pids limit %d, want %d", n, pids)
		}
		if i := b.instance(r.ID); i.Pid != first.Pid || i.Limits != l.Fingerprint() {
			t.Errorf("%+v, limits want %q", i, l.Fingerprint())
		}
	}

	low := spec.Limits{Memory: 32 << 20}
	err := b.Limit(b.ctx, r.ID, low)
	if !errors.Is(err, spec.ErrRefused) || !strings.Contains(fmt.Sprint(err), "below") {
		t.Errorf("a limit below use: %v", err)
	}
	if i := b.instance(r.ID); i.Phase != spec.PhaseRunning || i.Limits == low.Fingerprint() {
		t.Errorf("after a refused limit: %+v", i)
	}

	if err := b.Signal(b.ctx, r.ID, "SIGKILL"); err != nil {
		t.Fatal(err)
	}
	b.awaitPhase(r.ID, spec.PhaseExited)
	if err := b.Start(b.ctx, r.ID); err != nil {
		t.Fatal(err)
	}
	if n := b.memoryLimit(r.ID); n != 128<<20 {
		t.Errorf("memory limit after a restart: %d", n)
	}
}

// TestLimitsLifted: what is limited no more is as if it had never been.
func TestLimitsLifted(t *testing.T) {
	b := newBench(t)
	image := b.app()
	free, r := request(image, 1, "serve", "8080"), request(image, 2, "serve", "8080")
	r.Limits = spec.Limits{Memory: 256 << 20, CPUs: 1, CPUShares: 512, CPUSet: "0", Pids: 100, MemoryLow: 16 << 20}
	b.run(free)
	b.run(r)
	if err := b.Limit(b.ctx, r.ID, spec.Limits{}); err != nil {
		t.Fatal(err)
	}
	for _, f := range []struct{ controller, v1, v2 string }{
		{"memory", "memory.limit_in_bytes", "memory.max"},
		{"memory", "memory.soft_limit_in_bytes", "memory.low"},
		{"cpu", "cpu.cfs_quota_us", "cpu.max"},
		{"cpu", "cpu.shares", "cpu.weight"},
		{"cpuset", "cpuset.cpus", "cpuset.cpus.effective"},
		{"pids", "pids.max", "pids.max"},
	} {
		if got, want := b.setting(r.ID, f.controller, f.v1, f.v2), b.setting(free.ID, f.controller, f.v1, f.v2); got != want {
			t.Errorf("%s is %q, without limits from the start %q", f.v1, got, want)
		}
	}
	if i := b.instance(r.ID); i.Limits != "" {
		t.Errorf("limits in force: %q", i.Limits)
	}
}

func (b *bench) setting(id, controller, v1, v2 string) string {
	b.t.Helper()
	path := filepath.Join(cgroupRoot, controller, b.cfg.Namespace, id, v1)
	if b.cgroup.v2 {
		path = filepath.Join(cgroupRoot, b.cfg.Namespace, id, v2)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		b.t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// TestLogLimits: max-size and max-file bound a replica's log, whatever the
// agent's defaults are.
func TestLogLimits(t *testing.T) {
	b := newBench(t)
	r := request(b.app(), 1, "log", "20000", "100")
	r.Logging = spec.Logging{MaxSize: 256 << 10, MaxFile: 2}
	b.output(r)
	files, err := filepath.Glob(b.LogPath(r.ReplicaKey) + "*")
	if err != nil || len(files) != 2 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, f := range files {
		if st, err := os.Stat(f); err != nil || st.Size() > 384<<10 { // a batch of lines is written whole
			t.Errorf("%s: %v, %v", f, st, err)
		}
	}
}

// TestGroupRemoved: a replica's group goes with it, and another agent finds
// the limits that this one has set.
func TestGroupRemoved(t *testing.T) {
	b := newBench(t)
	r := request(b.app(), 1, "serve", "8080")
	r.Limits = spec.Limits{Memory: 64 << 20}
	b.run(r)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b.connect()
	if i := b.instance(r.ID); i.Limits != r.Limits.Fingerprint() || b.memoryLimit(r.ID) != 64<<20 {
		t.Errorf("after a restart of the agent: %+v", i)
	}
	if err := b.Remove(b.ctx, r.ID); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{b.cgroup.procs, b.cgroup.memory} {
		if _, err := os.Stat(filepath.Join(dir, r.ID)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", dir, err)
		}
	}
}
