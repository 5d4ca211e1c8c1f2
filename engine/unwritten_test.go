package engine

import (
	"syscall"
	"testing"
	"time"

	"dunnage/spec"
)

// TestWriterIsKilled: the replica whose log writer is killed is marked, alone and
// until its next run; one whose writer is stopped, until that goes on.
func TestWriterIsKilled(t *testing.T) {
	b := newBench(t)
	image := b.app()
	killed, other := request(image, 1, "serve", "8080"), request(image, 2, "serve", "8080")
	b.run(killed)
	b.run(other)
	b.awaitPhase(killed.ID, spec.PhaseRunning)
	look := func(id string) spec.Instance {
		b.inventory.asking.Lock()
		b.writers.looked = time.Time{} // else only every 30 s
		b.inventory.asking.Unlock()
		return b.instance(id)
	}
	if i := look(killed.ID); i.Unwritten {
		t.Errorf("its writer lives: %+v", i)
	}
	pid := b.writers.pids[killed.ID]
	if pid == 0 {
		t.Fatal("its writer isn't known")
	}
	await := func(what string, stopped int) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); look(killed.ID).StoppedWriter != stopped; time.Sleep(50 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %+v", what, look(killed.ID))
			}
		}
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	await("it is stopped", pid)
	if i := look(killed.ID); i.Unwritten {
		t.Errorf("it isn't gone: %+v", i)
	}
	if got := b.StoppedWriters(); len(got) != 1 || got[killed.ID] != pid {
		t.Errorf("doctor is told of %v stopped", got)
	}
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	await("it goes on", 0)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); !look(killed.ID).Unwritten; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it isn't noticed")
		}
	}
	if got := b.LogWriters(); len(got) != 1 || got[other.ID] == "" {
		t.Errorf("doctor is told of %v", got)
	}
	if i := look(other.ID); i.Phase != spec.PhaseRunning || i.Unwritten {
		t.Errorf("the other one: %+v", i)
	}
	if err := b.Signal(b.ctx, killed.ID, "SIGKILL"); err != nil {
		t.Fatal(err)
	}
	b.awaitPhase(killed.ID, spec.PhaseExited)
	b.startsOnce(killed.ID)
	if i := b.awaitPhase(killed.ID, spec.PhaseRunning); i.Unwritten {
		t.Errorf("at once after its start: %+v", i)
	}
	if i := look(killed.ID); i.Unwritten {
		t.Errorf("it has another writer: %+v", i)
	}
}
