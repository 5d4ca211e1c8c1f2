package engine

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dunnage/spec"
)

// TestLogSources: services and replicas are chosen side by side; a number that
// runs hides the removed ones of it, but not from who names them in full.
func TestLogSources(t *testing.T) {
	e := &Engine{cfg: Config{StateDir: t.TempDir()}, started: &startRecords{dir: t.TempDir(), boot: "now"}}
	for id, running := range map[string]bool{
		"p-web-aaaaaaaa-1": false, "p-web-bbbbbbbb-1": true, "p-web-bbbbbbbb-2": true, "p-db-cccccccc-1": true, "p-job-dddddddd-1": false,
	} {
		path := e.cfg.logPath(spec.ReplicaKey{ID: id, Project: "p", Service: strings.Split(id, "-")[1]})
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if running {
			if err := e.started.put(id, startRecord{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		services, replicas, want string
	}{
		{"", "", "p-db-cccccccc-1 p-job-dddddddd-1 p-web-bbbbbbbb-1 p-web-bbbbbbbb-2"},
		{"web", "", "p-web-bbbbbbbb-1 p-web-bbbbbbbb-2"},
		{"", "web-1", "p-web-bbbbbbbb-1"},
		{"db", "web-2", "p-db-cccccccc-1 p-web-bbbbbbbb-2"},
		{"", "p-web-aaaaaaaa-1", "p-web-aaaaaaaa-1"},
		{"", "job-1", "p-job-dddddddd-1"},
		{"", "web-3", ""},
	} {
		var got []string
		for _, s := range e.logSources(spec.LogRequest{Project: "p", Services: strings.Fields(c.services), Replicas: strings.Fields(c.replicas)}) {
			got = append(got, s.Replica)
		}
		if slices.Sort(got); strings.Join(got, " ") != c.want {
			t.Errorf("services %q, replicas %q: %v, want %s", c.services, c.replicas, got, c.want)
		}
	}
}

// The last lines of a replica are to be had after it is removed, and a long one
// is cut.
func TestTail(t *testing.T) {
	b := newBench(t)
	r := request(b.app(), 1, "no-such-verb")
	all := b.output(r)
	lines, err := b.Tail(b.ctx, r.ReplicaKey, time.Time{}, 1)
	if want := strings.Split(strings.TrimSuffix(all, "\n"), "\n"); err != nil || len(lines) != 1 || lines[0] != want[len(want)-1] {
		t.Errorf("%q, %v, want the last of %q", lines, err, want)
	}
	if lines, err := b.Tail(b.ctx, r.ReplicaKey, time.Now(), 1); err != nil || len(lines) > 0 {
		t.Errorf("%q, %v, though it wrote them before", lines, err)
	}
	none := r.ReplicaKey
	none.ID += "0"
	if lines, err := b.Tail(b.ctx, none, time.Time{}, 1); err != nil || len(lines) > 0 {
		t.Errorf("of one that never was: %q, %v", lines, err)
	}
}
