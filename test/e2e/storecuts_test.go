package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"dunnage/internal/testenv"
	"dunnage/spec"
	"dunnage/store"
	"dunnage/test/powercut"
)

// storeRun is what was done to a store on a disk that notes it.
type storeRun struct {
	disk  *powercut.Disk
	began int   // the instant at which the first of it was asked for
	made  int   // that at which Open returned: from then on there is a file
	acked []int // of each commit, the first counts as 1: the instant at which it was acknowledged
}

const (
	storeDisk    = 48 << 20
	storeCommits = 120
)

// change is commit n: a record that is replaced and one that is added, as a deploy does.
func change(n int) spec.Commit {
	return spec.Commit{
		Projects: []spec.ProjectRecord{{Name: "shop", Desired: n}},
		Releases: []spec.ReleaseRecord{{Project: "shop", Release: spec.Release{Number: n, Reason: fmt.Sprintf("%0512d", n)}}},
	}
}

// write opens a store in dir and changes it, with what else happens to a store
// in between: it is closed, opened and written anew.
func (r *storeRun) write(t *testing.T, dir string) {
	t.Helper()
	path := filepath.Join(dir, "state", "dunnage.db")
	open := func() *store.Store {
		st, err := store.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	st := open()
	r.made = r.disk.Now()
	for n := 1; n <= storeCommits; n++ {
		if err := st.Commit(change(n)); err != nil {
			t.Fatal(err)
		}
		r.acked = append(r.acked, r.disk.Now())
		var err error
		switch n {
		case storeCommits / 3:
			err = st.Compact()
		case storeCommits * 2 / 3:
			err = st.Close()
			st = open()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
}

// check boots from what the disk may hold after a cut at the instant: the file
// must open, if it was there, and have every change that was acknowledged.
func (r *storeRun) check(t *testing.T, instant int, random *rand.Rand) error {
	t.Helper()
	image, dir := filepath.Join(t.TempDir(), "image"), filepath.Join(t.TempDir(), "after")
	r.disk.Cut(instant, random, image)
	defer os.Remove(image)
	powercut.Mount(t, image, dir)
	defer powercut.Unmount(t, dir)
	path := filepath.Join(dir, "state", "dunnage.db")
	if _, err := os.Stat(path); instant >= r.made && err != nil {
		return fmt.Errorf("the store is gone: %w", err)
	}
	st, err := store.Open(path)
	if err != nil {
		return err
	}
	defer st.Close() //nolint:errcheck // only read
	state, err := st.Load()
	if err != nil {
		return err
	}
	acknowledged, have := 0, 0
	for _, at := range r.acked {
		if at <= instant {
			acknowledged++
		}
	}
	for _, p := range state.Projects {
		have = p.Desired
	}
	if have < acknowledged {
		return fmt.Errorf("%d changes were acknowledged, and it has %d", acknowledged, have)
	}
	if n := len(state.Releases["shop"]); n != have {
		return fmt.Errorf("it has change %d, and %d releases: half a change", have, n)
	}
	return st.Commit(change(have + 1)) // it isn't only read
}

// cuts tries random instants and returns what was found, by number of the instant.
func (r *storeRun) cuts(t *testing.T, n int, seed uint64) (wrong []error) {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 0))
	for range n {
		instant := r.began + random.IntN(r.disk.Now()-r.began+1)
		if err := r.check(t, instant, random); err != nil {
			wrong = append(wrong, fmt.Errorf("cut after write %d of %d: %w", instant, r.disk.Now(), err))
		}
	}
	return wrong
}

func cutStore(t *testing.T) *storeRun {
	t.Helper()
	testenv.Root(t)
	disk, dir := powercut.New(t, storeDisk), filepath.Join(t.TempDir(), "disk")
	disk.Mount(dir)
	r := &storeRun{disk: disk, began: disk.Now()}
	r.write(t, dir)
	powercut.Unmount(t, dir)
	return r
}

// The power is cut while a store is made, changed, written anew and opened again.
func TestPowerCutsOfTheStore(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	r := cutStore(t)
	n := rounds(20, 200)
	wrong := r.cuts(t, n, seed)
	for _, err := range wrong {
		t.Errorf("seed %d: %v", seed, err)
	}
	row(t, "power cuts of the store, on a disk that loses what it wasn't told to keep", "it opens, no acknowledged change lost",
		fmt.Sprintf("%d of %d cuts lost something, among %d writes and flushes", len(wrong), n, r.disk.Now()-r.began), len(wrong) == 0)
}

// And while one of an earlier version is brought to the present one: it is the
// old one or the new one, and opens.
func TestPowerCutsOfAMigration(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	for version, without := range map[string][]string{"1": {"secrets", "versions", "keys", "audit", "receipts"}, "2": {"receipts"}} {
		t.Run(version, func(t *testing.T) {
			testenv.Root(t)
			disk, dir := powercut.New(t, storeDisk), filepath.Join(t.TempDir(), "disk")
			disk.Mount(dir)
			path := filepath.Join(dir, "state", "dunnage.db")
			st, err := store.Open(path)
			if err == nil {
				err = errors.Join(st.Commit(change(1)), st.Close())
			}
			if err != nil {
				t.Fatal(err)
			}
			outdate(t, path, version, without)
			r := &storeRun{disk: disk, began: disk.Now(), acked: []int{disk.Now()}}
			r.made = r.began
			if st, err = store.Open(path); err == nil {
				err = st.Close()
			}
			if err != nil {
				t.Fatal(err)
			}
			powercut.Unmount(t, dir)
			for _, err := range r.cuts(t, rounds(4, 20), seed) {
				t.Errorf("seed %d: %v", seed, err)
			}
		})
	}
}

// outdate makes a store one of an earlier version.
func outdate(t *testing.T, path, version string, without []string) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, b := range without {
			if err := tx.DeleteBucket([]byte(b)); err != nil {
				return err
			}
		}
		return tx.Bucket([]byte("meta")).Put([]byte("version"), []byte(version))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

// A program that doesn't ask for its changes to be kept is noticed.
func TestPowerCutsNoticeAMissingSync(t *testing.T) {
	testenv.Root(t)
	disk, dir := powercut.New(t, storeDisk), filepath.Join(t.TempDir(), "disk")
	disk.Mount(dir)
	path := filepath.Join(dir, "state", "dunnage.db")
	st, err := store.Open(path)
	if err == nil {
		err = st.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	r := &storeRun{disk: disk, made: disk.Now()}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= storeCommits; n++ {
		err := db.Update(func(tx *bbolt.Tx) error {
			return tx.Bucket([]byte("projects")).Put([]byte("shop"), fmt.Appendf(nil, `{"name":"shop","desired":%d}`, n))
		})
		if err != nil {
			t.Fatal(err)
		}
		r.acked = append(r.acked, disk.Now())
	}
	r.began = disk.Now()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	powercut.Unmount(t, dir) // writes all of it
	seed := uint64(time.Now().UnixNano())
	if wrong := r.cuts(t, 5, seed); len(wrong) == 0 {
		t.Errorf("seed %d: nothing was synced, and nobody noticed in 5 cuts", seed)
	}
}

// An agent whose store has lost one of its two meta pages starts from the other,
// and says that the last change may be missing, until it is started once more.
func TestStoreWithOneMetaPage(t *testing.T) {
	h := newHost(t)
	h.mustDeploy(hello("v1", 1, ""))
	pid := h.ready(1)[0].Pid
	if err := h.lab.Stop(t.Context(), "agent"); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(h.lab.Path("state", "dunnage.db"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(make([]byte, 4096), 0)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	h.start()
	if now := h.ready(1)[0].Pid; now != pid {
		t.Errorf("the replica is another process: %d, was %d", now, pid)
	}
	told := func(args ...string) string {
		r := h.run(nil, args...)
		return strings.Join(strings.Fields(r.stdout+r.stderr), " ")
	}
	const want = "so the last change that was taken may be missing"
	for _, verb := range []string{"ps", "events --no-follow"} {
		if text := told(strings.Fields(verb)...); !strings.Contains(text, want) {
			t.Errorf("dunnage %s doesn't tell:\n%s", verb, text)
		}
	}
	h.must("scale", "-p", "hello", "web=2") // a change, which writes the page anew
	if err := h.lab.Stop(t.Context(), "agent"); err != nil {
		t.Fatal(err)
	}
	h.start()
	if text := told("ps"); strings.Contains(text, want) {
		t.Errorf("the next agent tells of it again:\n%s", text)
	}
	h.clean(h.ready(2))
}
