package engine

import (
	"testing"
	"time"

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
