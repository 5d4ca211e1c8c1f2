package store_test

import (
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.etcd.io/bbolt"

	"dunnage/spec"
	"dunnage/store"
	"dunnage/store/storetest"
)

// TestMain is also the agent that is killed: it opens the store, writes it
// anew and dies at a step of that.
func TestMain(m *testing.M) {
	path, dieAt := os.Getenv("STORE_TEST_PATH"), os.Getenv("STORE_TEST_STEP")
	if path == "" {
		os.Exit(m.Run())
	}
	store.AtStep(func(step string) {
		if step == dieAt {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	})
	s, err := store.Open(path)
	if err == nil && dieAt == "full" {
		signal.Ignore(syscall.SIGXFSZ)
		err = syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 64 << 10, Max: 64 << 10})
	}
	if err == nil {
		err = s.Compact()
	}
	if err == nil {
		os.Exit(0) // the step didn't come
	}
	_, _ = os.Stderr.WriteString(err.Error())
	if s != nil {
		if _, err := s.Load(); err != nil { // a failed compaction leaves it in use
			_, _ = os.Stderr.WriteString(err.Error())
		}
	}
	os.Exit(1)
}

func child(path, step string) *exec.Cmd {
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), "STORE_TEST_PATH="+path, "STORE_TEST_STEP="+step)
	return c
}

func killedAt(t *testing.T, path, step string) {
	t.Helper()
	out, err := child(path, step).CombinedOutput()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || !exit.Sys().(syscall.WaitStatus).Signaled() {
		t.Fatalf("at %q: %v: %s", step, err, out)
	}
}

// An agent killed at any step of a compaction leaves the old file with the mark
// or the new one without, whole, and the next Open tidies up.
func TestCompactKilled(t *testing.T) {
	for _, tc := range []struct {
		step string
		old  bool
	}{{"created", true}, {"copied", true}, {"cleared", true}, {"synced", true}, {"renamed", false}, {"durable", false}} {
		t.Run(tc.step, func(t *testing.T) {
			path, want := marked(t)
			killedAt(t, path, tc.step)
			if _, err := os.Stat(path + ".compact"); tc.old != (err == nil) {
				t.Fatalf("the copy: %v", err) // else the test tests nothing
			}
			s := open(t, path)
			want.key.Compact = tc.old
			want.check(t, s)
			onlyFile(t, path)
			if err := s.Compact(); err != nil {
				t.Fatal(err)
			}
			want.key.Compact = false
			want.check(t, s)
			onlyFile(t, path)
		})
	}
}

// What a compaction was writing when the power failed may be anything.
func TestOpenRemovesAnyCopy(t *testing.T) {
	for name, data := range map[string]string{"empty": "", "zeros": string(make([]byte, 8192)), "text": strings.Repeat("hello\n", 4096)} {
		t.Run(name, func(t *testing.T) {
			path, want := marked(t)
			write(t, path+".compact", []byte(data))
			s := open(t, path)
			onlyFile(t, path)
			write(t, path+".compact", []byte(data)) // as a failed one leaves it, at worst
			if err := s.Compact(); err != nil {
				t.Fatal(err)
			}
			onlyFile(t, path)
			want.key.Compact = false
			want.check(t, s)
		})
	}
}

// A compaction that can't be done leaves the store in use as it was.
func TestCompactFails(t *testing.T) {
	path, want := marked(t)
	s := open(t, path)
	if err := os.MkdirAll(path+".compact/in the way", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.Compact(); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("Compact: %v", err)
	}
	want.check(t, s)
	if err := s.Commit(spec.Commit{Projects: []spec.ProjectRecord{{Name: "later"}}}); err != nil {
		t.Error(err)
	}
}

// Neither does one that finds no room for the new file.
func TestCompactWithoutRoom(t *testing.T) {
	path, want := marked(t)
	out, err := child(path, "full").CombinedOutput()
	if err == nil || !strings.HasPrefix(string(out), "write store "+path+" anew: ") || !strings.HasSuffix(string(out), "file too large") {
		t.Fatalf("%v: %s", err, out)
	}
	onlyFile(t, path)
	want.check(t, open(t, path))
}

// A store of an earlier version keeps what it has; an agent killed before the
// migration's commit leaves it as it was.
func TestMigrate(t *testing.T) {
	for _, tc := range []struct {
		version string
		without []string
		schema  string
	}{
		{"1", []string{"secrets", "versions", "keys", "audit", "receipts"}, "1, 5 buckets"},
		{"2", []string{"receipts"}, "2, 9 buckets"},
	} {
		t.Run(tc.version, func(t *testing.T) { migrates(t, tc.version, tc.without, tc.schema) })
	}
}

func migrates(t *testing.T, from string, without []string, before string) {
	path := filepath.Join(t.TempDir(), "dunnage.db")
	s := open(t, path)
	if err := s.Commit(spec.Commit{
		Projects: []spec.ProjectRecord{{Name: "shop", Desired: 7}},
		Releases: []spec.ReleaseRecord{{Project: "shop", Release: spec.Release{Number: 7}}},
	}); err != nil {
		t.Fatal(err)
	}
	want, err := s.Load()
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	edit(t, path, func(tx *bbolt.Tx) error {
		for _, b := range without {
			if err := tx.DeleteBucket([]byte(b)); err != nil {
				return err
			}
		}
		return tx.Bucket([]byte("meta")).Put([]byte("version"), []byte(from))
	})

	killedAt(t, path, "migrated")
	if got := schema(t, path); got != before {
		t.Fatalf("after a crash: version %s", got)
	}

	s = open(t, path)
	check(t, s, want)
	if err := errors.Join(s.Commit(spec.Commit{
		Versions: []spec.SecretVersion{storetest.Version("", "a", 1, "x")},
		Receipts: []spec.Receipt{{Project: "shop", Number: 1}},
	}), s.Close()); err != nil {
		t.Fatal(err)
	}
	if got := schema(t, path); got != "3, 10 buckets" {
		t.Errorf("after Open: version %s", got)
	}
}

// A damaged store of an earlier version isn't made one of the present.
func TestMigrateRefusesDamage(t *testing.T) {
	for version, lacks := range map[string]string{"1": "replicas", "2": "audit"} {
		path := filepath.Join(t.TempDir(), "dunnage.db")
		if err := open(t, path).Close(); err != nil {
			t.Fatal(err)
		}
		edit(t, path, func(tx *bbolt.Tx) error {
			return errors.Join(tx.DeleteBucket([]byte(lacks)), tx.Bucket([]byte("meta")).Put([]byte("version"), []byte(version)))
		})
		if _, err := store.Open(path); err == nil || !strings.Contains(err.Error(), "it has no "+lacks+"; restore it from a backup") {
			t.Errorf("Open: %v", err)
		}
		if got := schema(t, path); got != version+", 9 buckets" {
			t.Errorf("afterwards: version %s", got)
		}
	}
}
