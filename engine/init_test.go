package engine

import (
	"testing"
	"time"

	"dunnage/spec"
)

// TestInit: orphans are reaped, signals reach the program, and its exit code is
// the container's.
func TestInit(t *testing.T) {
	b := newBench(t)
	image := b.app()
	run := func(n int, init bool, args ...string) spec.CreateRequest {
		r := request(image, n, args...)
		r.Container.Init = init
		b.run(r)
		return r
	}
	for n, init := range []bool{false, true} {
		r := run(n, init, "sleep", "1h")
		b.awaitReady(r)
		pid, alive := b.instance(r.ID).Pid, len(b.cgroup.pids(r.ID))
		if code, _, _ := b.exec(r.ID, "", "/testapp", "orphan", "10ms", "child"); code != 0 {
			t.Fatalf("code %d", code)
		}
		b.awaitProcesses(r.ID, alive)
		want := 1 // what init is for
		if init {
			want = 0
		}
		for deadline := time.Now().Add(20 * time.Second); zombies(t, pid) != want; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("init %t: %d zombies, want %d", init, zombies(t, pid), want)
			}
		}
		if err := b.Signal(b.ctx, r.ID, "SIGUSR1"); err != nil {
			t.Fatal(err)
		}
		if i := b.awaitPhase(r.ID, spec.PhaseExited); i.ExitCode != 128+10 {
			t.Errorf("init %t: exit code %d after SIGUSR1", init, i.ExitCode)
		}
	}
	for n, c := range []struct {
		code int
		args []string
	}{{42, []string{"/testapp", "exit", "42"}}, {127, []string{"nothing"}}, {126, []string{"/etc/passwd"}}} {
		r := request(image, 10+n)
		r.Container.Entrypoint, r.Container.Command, r.Container.Init = c.args, []string{}, true
		b.run(r)
		if i := b.awaitPhase(r.ID, spec.PhaseExited); i.ExitCode != c.code {
			t.Errorf("%q: exit code %d, want %d", c.args, i.ExitCode, c.code)
		}
	}
	r := run(20, true, "spawn", "1") // its child is killed by the kernel, and so is the init's
	b.awaitReady(r)
	if err := b.Signal(b.ctx, r.ID, "SIGKILL"); err != nil {
		t.Fatal(err)
	}
	b.awaitPhase(r.ID, spec.PhaseExited)
	b.awaitProcesses(r.ID, 0)
}
