package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"dunnage/spec"
	"dunnage/store"
	"dunnage/store/storetest"
)

func open(t *testing.T, path string) *store.Store {
	t.Helper()
	s, err := store.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // closed twice after a reopen: harmless
	return s
}

func TestStore(t *testing.T) {
	var path string
	storetest.Run(t,
		func(t *testing.T) storetest.Store {
			path = filepath.Join(t.TempDir(), "state", "dunnage.db")
			return open(t, path)
		},
		func(t *testing.T, s storetest.Store) storetest.Store {
			if err := s.(*store.Store).Close(); err != nil {
				t.Fatal(err)
			}
			return open(t, path)
		})
}

func TestOpenLeavesNoTemporaryFile(t *testing.T) {
	dir := t.TempDir()
	open(t, filepath.Join(dir, "dunnage.db"))
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Fatalf("directory after Open: %v, %v", entries, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		prepare func(t *testing.T, path string)
		want    string
	}{
		"a file of another program": {func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte(strings.Repeat("hello\n", 4096)), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "restore it from a backup"},
		"an empty file": {func(t *testing.T, path string) {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, "it is empty; restore it from a backup"},
		"a file cut off in its first pages": {func(t *testing.T, path string) { truncated(t, path, 5000) }, "restore it from a backup"},
		"a file cut off behind them":        {func(t *testing.T, path string) { truncated(t, path, 10000) }, "it is cut off: 10000 of "},
		"a newer schema": {func(t *testing.T, path string) {
			if err := open(t, path).Close(); err != nil {
				t.Fatal(err)
			}
			setVersion(t, path, "99")
		}, `version "99"`},
		"a store in use": {func(t *testing.T, path string) { open(t, path) }, "another agent"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "dunnage.db")
			tc.prepare(t, path)
			before, _ := os.ReadFile(path)
			s, err := store.Open(path)
			if err == nil {
				_ = s.Close()
				t.Fatal("opened")
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %q doesn't say %q", err, tc.want)
			}
			if after, _ := os.ReadFile(path); string(after) != string(before) {
				t.Error("the file was changed")
			}
		})
	}
}

func TestLoadNamesTheBrokenRecord(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dunnage.db")
	if err := open(t, path).Close(); err != nil {
		t.Fatal(err)
	}
	raw(t, path, "replicas", "web-1", "{")
	_, err := open(t, path).Load()
	if err == nil || !strings.Contains(err.Error(), `replicas: "web-1"`) {
		t.Fatalf("Load: %v", err)
	}
}

func TestCommitIsWholeOrNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dunnage.db")
	s := open(t, path)
	err := s.Commit(spec.Commit{
		Projects: []spec.ProjectRecord{{Name: "p"}},
		Replicas: []spec.ReplicaRecord{{ReplicaKey: spec.ReplicaKey{ID: ""}}}, // bbolt refuses an empty key
	})
	if err == nil {
		t.Fatal("committed an empty key")
	}
	st, err := s.Load()
	if err != nil || len(st.Projects) != 0 {
		t.Fatalf("after a failed commit: %v, %v", st, err)
	}
}

// truncated leaves the first bytes of a store.
func truncated(t *testing.T, path string, size int64) {
	t.Helper()
	s := open(t, path)
	if err := s.Commit(spec.Commit{Projects: []spec.ProjectRecord{{Name: "shop"}}}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Close(), os.Truncate(path, size)); err != nil {
		t.Fatal(err)
	}
}

func setVersion(t *testing.T, path, v string) { raw(t, path, "meta", "version", v) }

func raw(t *testing.T, path, bucket, key, value string) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Update(func(tx *bbolt.Tx) error { return tx.Bucket([]byte(bucket)).Put([]byte(key), []byte(value)) }); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}
