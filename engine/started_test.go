package engine

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// The start of a process is known without the disk until its record changes.
func TestStartIsRemembered(t *testing.T) {
	s := &startRecords{dir: t.TempDir(), boot: "b"}
	e := &Engine{started: s}
	first, second := time.Unix(1000, 0).UTC(), time.Unix(2000, 0).UTC()
	put := func(pid int, at time.Time) {
		t.Helper()
		if err := s.put("a", startRecord{Pid: pid, Started: at}); err != nil {
			t.Fatal(err)
		}
	}
	put(7, first)
	for range 2 {
		if at := e.startedAt("a", 7); !at.Equal(first) {
			t.Fatalf("started at %s, want %s", at, first)
		}
	}
	if _, known := s.since("a", 8); known {
		t.Error("another process counts as this one")
	}
	put(7, second) // the same pid again
	if at := e.startedAt("a", 7); !at.Equal(second) {
		t.Errorf("started at %s, want %s", at, second)
	}
	if err := s.remove("a"); err != nil {
		t.Fatal(err)
	}
	if _, known := s.since("a", 7); known {
		t.Error("a removed record is remembered")
	}
}

// A directory that somebody removed is made again for the next record, and then those
// of who runs are written anew.
func TestStartRecordsRemoved(t *testing.T) {
	s := &startRecords{dir: filepath.Join(t.TempDir(), "started"), boot: "b"}
	e := &Engine{started: s}
	runs := os.Getpid()
	if err := s.put("a", startRecord{Pid: runs, Started: time.Unix(1000, 0)}); err != nil {
		t.Fatal(err)
	}
	e.startedAt("a", runs)
	if err := os.RemoveAll(s.dir); err != nil {
		t.Fatal(err)
	}
	if err := s.put("b", startRecord{Pid: 7}); err != nil {
		t.Fatal(err)
	}
	e.startedAt("a", runs)
	for id, pid := range map[string]int{"a": runs, "b": 7} {
		if r, ok := s.get(id); !ok || r.Pid != pid {
			t.Errorf("%s: %+v, %t", id, r, ok)
		}
	}
}
