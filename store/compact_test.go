package store_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dunnage/spec"
	"dunnage/store"
	"dunnage/store/storetest"
)

// contents are what a store of marked has.
type contents struct {
	state spec.State
	key   spec.SecretKey
	kept  []spec.SecretVersion
}

func (c contents) check(t *testing.T, s *store.Store) {
	t.Helper()
	want := c.state
	want.Key = &c.key
	check(t, s, want)
	for _, v := range c.kept {
		got, err := s.Sealed(v.Pin())
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(v, got); d != "" {
			t.Fatalf("version (-want +got):\n%s", d)
		}
	}
	var read []spec.AuditEntry
	if err := s.Audit(1, func(e spec.AuditEntry) error { read = append(read, e); return nil }); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(storetest.Entries(1, 700), read); d != "" {
		t.Fatalf("audit record (-want +got):\n%s", d)
	}
}

func canary(what string, n int) string { return fmt.Sprintf("canary-%s-%04d", what, n) }

// marked is a store after a change of keys: every value was sealed anew, some
// were dropped, and the file is marked.
func marked(t *testing.T) (string, contents) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dunnage.db")
	s := open(t, path)
	key := func(n int) *spec.SecretKey {
		return &spec.SecretKey{Store: "store", Source: "file", Sealed: []byte(canary("key", n)), Compact: n == 2}
	}
	was := spec.Commit{Key: key(1), Audit: storetest.Entries(1, 700), Projects: []spec.ProjectRecord{{Name: "shop"}}}
	now := spec.Commit{Key: key(2)}
	for n := 1; n <= 300; n++ {
		name := canary("name", n)
		was.Secrets = append(was.Secrets, spec.SecretRecord{SecretID: spec.SecretID{Project: "shop", Name: name}, Current: 1, Next: 2})
		v := storetest.Version("shop", name, 1, canary("old", n))
		was.Versions = append(was.Versions, v)
		if n%3 == 0 {
			now.DropSecrets = append(now.DropSecrets, v.SecretID)
			now.DropVersions = append(now.DropVersions, v.Pin())
			continue
		}
		v.Sealed = []byte(canary("new", n))
		now.Versions = append(now.Versions, v)
	}
	long := storetest.Version("", "long", 1, string(bytes.Repeat([]byte("canary-long-"), 20_000))) // pages that overflow
	was.Versions = append(was.Versions, long)
	now.DropVersions = append(now.DropVersions, long.Pin())
	if err := errors.Join(s.Commit(was), s.Commit(now)); err != nil {
		t.Fatal(err)
	}
	state, err := s.Load()
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	return path, contents{state: state, key: *now.Key, kept: now.Versions}
}

// Compact leaves no byte of what was dropped or replaced in the file.
func TestCompactLeavesNothing(t *testing.T) {
	path, want := marked(t)
	s := open(t, path)
	gone := []string{coded(canary("key", 1)), base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("canary-long-"), 8))}
	for n := 1; n <= 300; n++ {
		gone = append(gone, coded(canary("old", n)))
		if n%3 == 0 {
			gone = append(gone, canary("name", n))
		}
	}
	if found := found(t, path, gone); found < len(gone)/2 {
		t.Fatalf("before: %d of %d values are found in free pages, so the search is worth nothing", found, len(gone))
	}
	before, _ := os.Stat(path)
	if err := s.Compact(); err != nil {
		t.Fatal(err)
	}
	if found := found(t, path, gone); found != 0 {
		t.Errorf("after: %d of %d values are still found", found, len(gone))
	}
	kept := []string{coded(canary("key", 2)), coded(canary("new", 1)), canary("name", 1)}
	if found := found(t, path, kept); found != len(kept) {
		t.Errorf("after: only %d of %d present values are found", found, len(kept))
	}
	after, err := os.Stat(path)
	if err != nil || after.Mode() != before.Mode() || after.Size() >= before.Size() {
		t.Errorf("the file was %v with %d bytes and is %v with %d (%v)", before.Mode(), before.Size(), after.Mode(), after.Size(), err)
	}
	want.key.Compact = false
	want.check(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	want.check(t, open(t, path)) // every page of it is checked there
}

// coded is how a value stands in JSON, without the end that depends on what follows.
func coded(s string) string {
	b, _ := json.Marshal([]byte(s))
	return string(bytes.Trim(b, `"`))
}

func found(t *testing.T, path string, values []string) int {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, v := range values {
		if bytes.Contains(data, []byte(v)) {
			n++
		}
	}
	return n
}

// Who waits for the store while its agent compacts it and ends gets the new
// file, not the one that has no name any more.
func TestOpenWhileCompacting(t *testing.T) {
	path, want := marked(t)
	s := open(t, path)
	opened := make(chan *store.Store, 1)
	go func() {
		next, err := store.Open(path)
		if err != nil {
			t.Error(err)
		}
		opened <- next
	}()
	for opens(t, path) < 2 {
		runtime.Gosched()
	}
	for range 3 {
		if err := s.Compact(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-opened:
			t.Fatal("opened while another one has it")
		default:
		}
	}
	if err := errors.Join(s.Commit(spec.Commit{Projects: []spec.ProjectRecord{{Name: "shop", Desired: 2}}}), s.Close()); err != nil {
		t.Fatal(err)
	}
	next := <-opened
	if next == nil {
		return
	}
	defer next.Close() //nolint:errcheck // only read
	want.key.Compact = false
	want.state.Projects[0].Desired = 2
	want.check(t, next)
}

// The lock that was waited for is that of the file which has the name.
func TestLockWhileCompacting(t *testing.T) {
	path, _ := marked(t)
	s := open(t, path)
	done := make(chan error, 1)
	go func() {
		db, file, err := store.OpenFile(path, false)
		if err != nil {
			done <- err
			return
		}
		got, err1 := file.Stat()
		there, err2 := os.Stat(path)
		if err = errors.Join(err1, err2); err == nil && !os.SameFile(got, there) {
			err = errors.New("opened the file that has no name any more")
		}
		done <- errors.Join(err, db.Close())
	}()
	for opens(t, path) < 2 {
		runtime.Gosched()
	}
	if err := errors.Join(s.Compact(), s.Close()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Commits and reads go on beside compactions: none is lost.
func TestCompactBeside(t *testing.T) {
	path, want := marked(t)
	s := open(t, path)
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			for n := range 20 {
				if err := s.Commit(spec.Commit{Projects: []spec.ProjectRecord{{Name: fmt.Sprintf("p%d-%02d", i, n)}}}); err != nil {
					t.Error(err)
				}
				if _, err := s.Sealed(want.kept[n].Pin()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 5 {
		if err := s.Compact(); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
	st, err := s.Load()
	if err != nil || len(st.Projects) != 1+60 {
		t.Errorf("%d projects, %v", len(st.Projects), err)
	}
}
