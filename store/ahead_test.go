package store_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"dunnage/internal/testenv"
	"dunnage/spec"
	"dunnage/store"
)

// fill writes until nothing fits, and then makes room for so many bytes.
func fill(t *testing.T, dir string, leave int64) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, block := int64(0), make([]byte, os.Getpagesize())
	for err == nil {
		var n int
		n, err = f.Write(block)
		size += int64(n)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if err := f.Truncate(max(size-leave, 0)); err != nil {
		t.Fatal(err)
	}
}

// TestFullDisk: a store on a full disk takes many changes of what it holds, since
// it owns the room for them, and opens again there.
func TestFullDisk(t *testing.T) {
	dir := testenv.SmallDisk(t, "size=4m")
	path := filepath.Join(dir, "dunnage.db")
	s, err := store.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, dir, 0)
	for round := range 2 {
		for i := range 300 {
			c := spec.Commit{Projects: []spec.ProjectRecord{{Name: "shop", Desired: 1000*round + i}}, Replicas: []spec.ReplicaRecord{{ReplicaKey: spec.ReplicaKey{ID: fmt.Sprintf("shop-web-%d", i%20)}, Restarts: i}}}
			if err := s.Commit(c); err != nil {
				t.Fatalf("commit %d: %v", i, err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if s, err = store.Open(path); err != nil {
			t.Fatal(err)
		}
		if st, err := s.Load(); err != nil || len(st.Projects) != 1 || st.Projects[0].Desired != 1000*round+299 || len(st.Replicas) != 20 {
			t.Errorf("%v %+v", err, st.Projects)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestDiskFillsUp: with any number of free pages when the disk fills up, a commit
// that fails changes nothing, and commits go on once there is room.
func TestDiskFillsUp(t *testing.T) {
	page := int64(os.Getpagesize())
	for _, free := range []int64{0, 1, 2, 3, 5, 9, 20, 60} {
		dir := testenv.SmallDisk(t, "size=4m")
		path := filepath.Join(dir, "dunnage.db")
		s, err := store.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		fill(t, dir, free*page)
		acknowledged, failed := 0, false
		commit := func(i int) error { // each keeps more
			return s.Commit(spec.Commit{Replicas: []spec.ReplicaRecord{{ReplicaKey: spec.ReplicaKey{ID: fmt.Sprintf("r%06d", i)}, Image: strings.Repeat("x", 8000), Restarts: i}}})
		}
		for i := range 2000 {
			if failed = commit(i) != nil; failed {
				break
			}
			acknowledged = i + 1
		}
		if !failed {
			t.Fatal("the disk never was full")
		}
		before, err := s.Load()
		if err != nil || len(before.Replicas) != acknowledged {
			t.Errorf("%d pages free: %v, %d of %d replicas", free, err, len(before.Replicas), acknowledged)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if s, err = store.Open(path); err != nil {
			t.Fatalf("%d pages free: %v", free, err)
		}
		if after, err := s.Load(); err != nil || !reflect.DeepEqual(before, after) {
			t.Errorf("%d pages free: the file has another state than the store had: %v", free, err)
		}
		if err := os.Remove(filepath.Join(dir, "filler")); err != nil {
			t.Fatal(err)
		}
		if err := commit(acknowledged); err != nil {
			t.Errorf("%d pages free, with room again: %v", free, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
