package main

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"dunnage/spec"
	"dunnage/store"
)

// TestReplacedStore: an old copy of the store and another one are told from the one
// that ran, and that isn't told from itself.
func TestReplacedStore(t *testing.T) {
	dir, run := t.TempDir(), t.TempDir()
	open := func(name string) *headedStore {
		t.Helper()
		st, err := store.Open(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = st.Close() }) // closed already, mostly
		return withHead(st, run, slog.New(slog.NewTextHandler(io.Discard, nil)))
	}
	add := func(s *headedStore, last spec.AuditEntry, n int) spec.AuditEntry {
		t.Helper()
		for range n {
			last = spec.AuditEntry{Kind: spec.AuditSet, Secret: "db"}.After(last)
			if err := s.Commit(spec.Commit{Audit: []spec.AuditEntry{last}}); err != nil {
				t.Fatal(err)
			}
		}
		return last
	}
	check := func(what string, s *headedStore, want bool) {
		t.Helper()
		text, err := s.replaced()
		if err != nil || (text != "") != want || want && !strings.Contains(text, "entry 5 of the audit record") {
			t.Errorf("%s: %q, %v", what, text, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	check("a new one without a note", open("new.db"), false)
	s := open("real.db")
	last := add(s, spec.AuditEntry{}, 3)
	check("the one that ran", s, false)
	b, err := os.ReadFile(filepath.Join(dir, "real.db"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "copy.db"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	s = open("real.db")
	newest := add(s, last, 2)
	check("the one that went on", s, false)
	check("an old copy", open("copy.db"), true)
	check("an empty one", open("new.db"), true)
	check("the one that ran, again", open("real.db"), false)

	// Another history of as many entries, whose agent noted nothing here.
	s = open("copy.db")
	s.path = filepath.Join(dir, "elsewhere")
	e := spec.AuditEntry{Kind: spec.AuditRemove, Secret: "db"}.After(last)
	if err := s.Commit(spec.Commit{Audit: []spec.AuditEntry{e}}); err != nil {
		t.Fatal(err)
	}
	add(s, e, 1)
	s.path = filepath.Join(run, "audit-head")
	check("another history", s, true)
	if err := os.WriteFile(s.path, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	check("a damaged note", open("real.db"), false)

	// What would block whoever opens it holds up neither the start nor a commit.
	if err := errors.Join(os.Remove(s.path), syscall.Mkfifo(s.path, 0o600)); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s := open("real.db")
		if err := s.Commit(spec.Commit{Audit: []spec.AuditEntry{(spec.AuditEntry{Kind: spec.AuditSet, Secret: "db"}).After(newest)}}); err != nil {
			t.Error(err)
		}
		check("a FIFO", s, false)
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("a FIFO in the note's place: it hangs")
	}
}
