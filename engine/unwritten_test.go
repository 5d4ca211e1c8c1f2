package engine

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"dunnage/spec"
)

// lookAgain looks at the replica and at all log writers, as Instances does every 30 s.
func (b *bench) lookAgain(id string) spec.Instance {
	b.t.Helper()
	b.inventory.asking.Lock()
	b.writers.looked = time.Time{}
	b.inventory.asking.Unlock()
	return b.instance(id)
}

// TestWriterIsKilled: the replica whose log writer is killed is marked, alone and
// until its next run; one whose writer is stopped, until that goes on.
func TestWriterIsKilled(t *testing.T) {
	b := newBench(t)
	image := b.app()
	killed, other := request(image, 1, "serve", "8080"), request(image, 2, "serve", "8080")
	b.run(killed)
	b.run(other)
	b.awaitPhase(killed.ID, spec.PhaseRunning)
	look := b.lookAgain
	if i := look(killed.ID); i.LogWriter.Trouble != "" {
		t.Errorf("its writer lives: %+v", i)
	}
	pid := b.writers.pids[killed.ID]
	if pid == 0 {
		t.Fatal("its writer isn't known")
	}
	await := func(what string, stopped spec.LogWriter) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); look(killed.ID).LogWriter != stopped; time.Sleep(50 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %+v", what, look(killed.ID))
			}
		}
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	stopped := spec.LogWriter{Trouble: spec.WriterStopped, Pid: pid}
	await("it is stopped", stopped)
	if got := b.TroubledWriters(); len(got) != 1 || got[killed.ID] != stopped {
		t.Errorf("doctor is told of %v stopped", got)
	}
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	await("it goes on", spec.LogWriter{})
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await("it is gone", spec.LogWriter{Trouble: spec.WriterGone})
	if got := b.LogWriters(); len(got) != 1 || got[other.ID] == "" {
		t.Errorf("doctor is told of %v", got)
	}
	if i := look(other.ID); i.Phase != spec.PhaseRunning || i.LogWriter != (spec.LogWriter{}) {
		t.Errorf("the other one: %+v", i)
	}
	if err := b.Signal(b.ctx, killed.ID, "SIGKILL"); err != nil {
		t.Fatal(err)
	}
	b.awaitPhase(killed.ID, spec.PhaseExited)
	b.startsOnce(killed.ID)
	if i := b.awaitPhase(killed.ID, spec.PhaseRunning); i.LogWriter.Trouble != "" {
		t.Errorf("at once after its start: %+v", i)
	}
	if i := look(killed.ID); i.LogWriter.Trouble != "" {
		t.Errorf("it has another writer: %+v", i)
	}
}

// TestWriterIsStuck: the replica whose log writer doesn't read, without being stopped,
// is marked for as long, and only if something waits to be read.
func TestWriterIsStuck(t *testing.T) {
	b := newBench(t)
	image := b.app()
	prints, silent := request(image, 1, "tick", "10ms"), request(image, 2, "serve", "8080")
	b.run(prints)
	b.run(silent)
	b.awaitPhase(prints.ID, spec.PhaseRunning)
	b.awaitPhase(silent.ID, spec.PhaseRunning)
	b.lookAgain(prints.ID)
	pid := b.writers.pids[prints.ID]
	thaw, freezeAgain := freeze(t, pid, b.writers.pids[silent.ID])
	await := func(what string, writer spec.LogWriter) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); b.lookAgain(prints.ID).LogWriter != writer; time.Sleep(50 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %+v", what, b.instance(prints.ID))
			}
		}
	}
	stuck := spec.LogWriter{Trouble: spec.WriterStuck, Pid: pid}
	await("it is frozen", stuck)
	if got := b.TroubledWriters(); len(got) != 1 || got[prints.ID] != stuck {
		t.Errorf("doctor is told of %v", got)
	}
	if i := b.instance(silent.ID); i.LogWriter.Trouble != "" {
		t.Errorf("nobody knows whether it would read: %+v", i)
	}
	thaw()
	await("it goes on", spec.LogWriter{})
	if got := b.TroubledWriters(); len(got) != 0 {
		t.Errorf("doctor is told of %v still", got)
	}
	freezeAgain()
	await("it is frozen again", stuck)
	if err := b.Signal(b.ctx, prints.ID, "SIGKILL"); err != nil {
		t.Fatal(err)
	}
	b.awaitPhase(prints.ID, spec.PhaseExited)
	b.startsOnce(prints.ID) // the shim waits 12 s for the writer
	if i := b.awaitPhase(prints.ID, spec.PhaseRunning); i.LogWriter.Trouble != "" {
		t.Errorf("at once after its start: %+v", i)
	}
	for range 4 {
		if i := b.lookAgain(prints.ID); i.LogWriter.Pid == pid || i.LogWriter.Trouble == spec.WriterGone {
			t.Errorf("it has another writer: %+v", i)
		}
	}
	if now := b.writers.pids[prints.ID]; now == 0 || now == pid {
		t.Errorf("its writer is %d, %d before", now, pid)
	}
}

// TestWriterFails: the replica whose log's disk hangs is marked once lines are lost,
// until one is written.
func TestWriterFails(t *testing.T) {
	b := newBench(t)
	logs, disk := filepath.Join(b.cfg.StateDir, "logs"), filepath.Join(t.TempDir(), "disk")
	sh := func(command string) {
		t.Helper()
		if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", command, err, out)
		}
	}
	sh("mkdir -p " + logs + " && truncate -s 32M " + disk + " && mkfs.ext4 -q " + disk + " && mount -o loop " + disk + " " + logs)
	t.Cleanup(func() { sh("umount -l " + logs) })
	r := request(b.app(), 1, "serve", "8080")
	b.run(r)
	stdout, err := os.OpenFile(fmt.Sprintf("/proc/%d/fd/1", b.awaitPhase(r.ID, spec.PhaseRunning).Pid), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer stdout.Close()
	lines := func(n int) {
		t.Helper()
		if _, err := stdout.WriteString(strings.Repeat(strings.Repeat("x", 99)+"\n", n)); err != nil {
			t.Fatal(err)
		}
	}
	await := func(what string, trouble spec.WriterTrouble) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); b.lookAgain(r.ID).LogWriter.Trouble != trouble; time.Sleep(50 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %+v", what, b.instance(r.ID))
			}
		}
	}
	lines(10_000)
	await("it writes", "")
	sh("fsfreeze -f " + logs)
	thaw := sync.OnceFunc(func() { sh("fsfreeze -u " + logs) })
	t.Cleanup(thaw)
	b.lookAgain(r.ID)
	lines(10_000)
	await("its disk hangs", spec.WriterFails)
	if got := b.TroubledWriters(); len(got) != 1 || got[r.ID].Trouble != spec.WriterFails {
		t.Errorf("doctor is told of %v", got)
	}
	thaw()
	await("its disk answers", "")
	if got := b.TroubledWriters(); len(got) != 0 {
		t.Errorf("doctor is told of %v still", got)
	}
}

// freeze keeps processes from running, without a signal, until they are thawed; again
// repeats it.
func freeze(t *testing.T, pids ...int) (thaw, again func()) {
	t.Helper()
	root, file, on, off := filepath.Join(cgroupRoot, "freezer"), "freezer.state", "FROZEN", "THAWED"
	if _, err := os.Stat(filepath.Join(cgroupRoot, "cgroup.controllers")); err == nil {
		root, file, on, off = cgroupRoot, "cgroup.freeze", "1", "0"
	}
	group := filepath.Join(root, fmt.Sprintf("dunnage-test-%d", os.Getpid()))
	if err := os.Mkdir(group, 0o755); err != nil {
		t.Fatal(err)
	}
	put := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil && !errors.Is(err, syscall.ESRCH) {
			t.Error(err)
		}
	}
	was := map[int]string{}
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) { // "7:freezer:/path", in v2 "0::/path"
			if of := strings.SplitN(strings.TrimSpace(line), ":", 3); of[1] == "freezer" || of[1] == "" && root == cgroupRoot {
				was[pid] = filepath.Join(root, of[2], "cgroup.procs")
			}
		}
		put(filepath.Join(group, "cgroup.procs"), strconv.Itoa(pid))
	}
	again = func() { put(filepath.Join(group, file), on) }
	thaw = func() { put(filepath.Join(group, file), off) }
	again()
	t.Cleanup(func() {
		thaw()
		for pid, procs := range was {
			put(procs, strconv.Itoa(pid))
		}
		if err := os.Remove(group); err != nil {
			t.Error(err)
		}
	})
	return thaw, again
}
