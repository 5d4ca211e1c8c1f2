package engine

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"dunnage/spec"
)

// only knows one replica.
func only(replica string) func(string) bool {
	return func(id string) bool { return id == replica }
}

// TestLeftovers: what belongs to nobody is found and removed, and what belongs
// to a replica, an image or somebody else stays, as do logs.
func TestLeftovers(t *testing.T) {
	b := newBench(t)
	image := b.app()
	r, gone := request(image, 1, "serve", "8080"), request(image, 2, "serve", "8080")
	r.Container.Files = []spec.File{{Target: "/etc/x", Content: []byte("x")}}
	b.run(r)
	b.create(gone)
	known := only(r.ID)
	if left, err := b.Leftovers(b.ctx, known); err != nil || len(left) != 0 {
		t.Fatalf("nothing is left over, and there is: %v, %v", left, err)
	}
	// Its container goes, and nothing else.
	if err := b.client.ContainerService().Delete(b.ctx, gone.ID); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{
		filepath.Join(b.cfg.anonymousDir(), gone.ID, "x"), b.cfg.filesDir(gone.ID),
		filepath.Join(b.cfg.StateDir, "logs", "other", "web"), filepath.Join(b.cgroup.procs, gone.ID, "inner"),
	} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.started.put(gone.ID, startRecord{Pid: 1}); err != nil {
		t.Fatal(err)
	}
	left, err := b.Leftovers(b.ctx, known)
	var kinds []string
	for _, l := range left {
		kinds = append(kinds, l.Kind)
		if want := gone.ID; l.Name != want {
			t.Errorf("%+v is no leftover", l)
		}
	}
	if want := []string{"writable layer", "anonymous volumes", "files", "start record", "cgroup"}; err != nil || !slices.Equal(kinds, want) {
		t.Fatalf("left: %v, %v; want %q", left, err, want)
	}
	for _, l := range left { // it has come to belong to somebody
		if err := b.RemoveLeftover(b.ctx, l, only(gone.ID)); err != nil {
			t.Error(err)
		}
	}
	if again, err := b.Leftovers(b.ctx, known); err != nil || len(again) != len(left) {
		t.Errorf("somebody's was removed: %v, %v", again, err)
	}
	for _, l := range left {
		if err := b.RemoveLeftover(b.ctx, l, known); err != nil {
			t.Error(err)
		}
	}
	if again, err := b.Leftovers(b.ctx, known); err != nil || len(again) != 0 {
		t.Errorf("still left: %v, %v", again, err)
	}
	if _, err := os.Stat(filepath.Join(b.cfg.StateDir, "logs", "other", "web")); err != nil {
		t.Errorf("logs of what is gone: %v", err)
	}
	if i := b.instance(r.ID); i.Phase != spec.PhaseRunning {
		t.Errorf("the replica: %+v", i)
	}
	if _, err := os.Stat(b.cfg.filesDir(r.ID)); err != nil {
		t.Error(err)
	}
	b.removesAll(r.ID)
}
