package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"dunnage/internal/fault"
	"dunnage/internal/regular"
	"dunnage/spec"
	"dunnage/store"
)

// headFile is the note's name in the run directory.
const headFile = "audit-head"

// headedStore notes in the run directory where the audit record of secrets ends.
// A copy of the store that was brought back while the host ran shows by that: in
// itself it is as whole as any.
type headedStore struct {
	*store.Store
	path string // of the note
	log  *slog.Logger
	mu   sync.Mutex
}

func withHead(st *store.Store, runDir string, log *slog.Logger) *headedStore {
	return &headedStore{Store: st, path: filepath.Join(runDir, headFile), log: log}
}

// Commit implements orchestrator.Store. A crash before the note leaves one of an
// entry that the store has as well.
func (s *headedStore) Commit(c spec.Commit) error {
	n := len(c.Audit)
	if n == 0 {
		return s.Store.Commit(c)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if fault.Sabotaged("forget audit") && c.Audit[n-1].Seq%2 == 0 {
		c.Audit = nil
		return s.Store.Commit(c)
	}
	if err := s.Store.Commit(c); err != nil {
		return err
	}
	if err := fault.Do("audit head write", func() error { return s.note(c.Audit[n-1]) }); err != nil {
		s.log.Warn("note where the audit record ends", "error", err)
	}
	return nil
}

// note overwrites the one before, which is as long, in one write.
func (s *headedStore) note(e spec.AuditEntry) error {
	f, err := regular.Open(s.path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%020d %s\n", e.Seq, e.Hash)
	return errors.Join(err, f.Close())
}

// replaced says that the store isn't the one that ran last, or is an earlier
// state of it; empty = it is the one, or there is nothing to tell it by.
func (s *headedStore) replaced() (string, error) {
	b, err := regular.ReadFile(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	var noted spec.AuditEntry
	if err == nil {
		_, err = fmt.Fscanf(bytes.NewReader(b), "%d %64s", &noted.Seq, &noted.Hash)
	}
	if err != nil { // it serves only to warn
		s.log.Warn("can't read where the audit record ended", "file", s.path, "error", err)
		return "", nil
	}
	var found spec.AuditEntry
	errFirst := errors.New("the first one will do")
	err = s.Audit(noted.Seq, func(e spec.AuditEntry) error {
		found = e
		return errFirst
	})
	switch {
	case err != nil && !errors.Is(err, errFirst):
		return "", err
	case found.Seq > noted.Seq || found.Hash == noted.Hash: // the noted one may be too old to be kept
		return "", nil
	}
	return fmt.Sprintf("the store isn't the one that ran here last, or is an old copy of it: entry %d of the audit record, hash %.16s..., isn't in it, "+
		"so secrets have the values that it has (`dunnage secret ls`), and replicas are given those; set again what was changed since", noted.Seq, noted.Hash), nil
}
