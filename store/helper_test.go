package store_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"

	"dunnage/spec"
	"dunnage/store"
)

// opens counts how often this process has the file open.
func opens(t *testing.T, path string) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, fd := range fds {
		if to, _ := os.Readlink("/proc/self/fd/" + fd.Name()); to == path { // one that is gone is none
			n++
		}
	}
	return n
}

func check(t *testing.T, s *store.Store, want spec.State) {
	t.Helper()
	got, err := s.Load()
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("state (-want +got):\n%s", d)
	}
}

// onlyFile fails the test if there is another file beside the store.
func onlyFile(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("directory: %v, %v", entries, err)
	}
}

func edit(t *testing.T, path string, change func(tx *bbolt.Tx) error) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(change), db.Close()); err != nil {
		t.Fatal(err)
	}
}

// schema is the version of a store and the number of its buckets.
func schema(t *testing.T, path string) string {
	t.Helper()
	var out string
	edit(t, path, func(tx *bbolt.Tx) error {
		n := 0
		err := tx.ForEach(func([]byte, *bbolt.Bucket) error { n++; return nil })
		out = fmt.Sprintf("%s, %d buckets", tx.Bucket([]byte("meta")).Get([]byte("version")), n)
		return err
	})
	return out
}
