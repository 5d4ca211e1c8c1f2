package secrets

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dunnage/spec"
)

// rotate does all that the agent does, but for values of its own.
func rotate(t *testing.T, v *Vault, passphrase spec.SecretValue, full bool) *spec.SecretKey {
	t.Helper()
	r, err := v.Rotate(passphrase, full)
	must(t, err)
	must(t, r.Finish())
	return &r.Key
}

// safe is a source whose key is known to a test.
type safe struct {
	source     string
	passphrase string // "" = it isn't one
}

// unlocked is a new agent's vault, and the record that it made if there was none.
func (s safe) unlocked(t *testing.T, record *spec.SecretKey, passphrase string) (*Vault, *spec.SecretKey) {
	t.Helper()
	v, made := loaded(t, s.source, record)
	if s.passphrase != "" {
		var err error
		made, err = v.Unlock(value(passphrase))
		must(t, err)
	}
	return v, made
}

// copyDir copies files, which are all as a key file has to be.
func copyDir(t *testing.T, from string) string {
	t.Helper()
	to := t.TempDir()
	putBack(t, to, from)
	return to
}

func putBack(t *testing.T, dir, from string) {
	t.Helper()
	must(t, os.RemoveAll(dir))
	must(t, os.Mkdir(dir, 0o700))
	entries, err := os.ReadDir(from)
	must(t, err)
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(from, e.Name()))
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, e.Name()), b, 0o400))
	}
}

// The agent is killed at each step of a rotation: what the store has then opens
// with what the source has then, and the other record doesn't matter.
func TestRotateKilledAtEachStep(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "source")
	must(t, os.Mkdir(dir, 0o700))
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	hexOf := func(digits string) string { return strings.Repeat(digits, 32) + "\n" }
	write := func(name, text string) { must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o400)) }
	for _, s := range []safe{
		{source: "file:" + filepath.Join(dir, "secrets.key")},
		{source: "credential"},
		{source: "passphrase", passphrase: "correct horse"},
		{source: "command:/bin/cat " + filepath.Join(dir, "printed")},
	} {
		for _, full := range []bool{false, true} {
			t.Run(fmt.Sprintf("%.7s,full=%v", s.source, full), func(t *testing.T) {
				must(t, os.RemoveAll(dir))
				must(t, os.Mkdir(dir, 0o700))
				write("dunnage.key", hexOf("01"))
				write("printed", hexOf("01"))
				v, made := s.unlocked(t, nil, s.passphrase)
				before := *made
				secret := sealed(t, v, dbPassword, 1, "hunter2")
				write("dunnage.key.new", hexOf("02"))
				must(t, os.Remove(filepath.Join(dir, "printed")))
				write("printed", hexOf("02")+hexOf("01"))

				start := copyDir(t, dir)
				r, err := v.Rotate(value("battery staple"), full)
				must(t, err)
				if (r.Reseal != nil) != full || r.Key.Compact != full || r.Key.Store != before.Store {
					t.Errorf("rotation %+v", r.Key)
				}
				moved := secret
				if full {
					moved.Sealed, err = r.Reseal(secret)
					must(t, err)
				}
				prepared := copyDir(t, dir)
				wantValue(t, v, secret, "hunter2")
				wantValue(t, v, moved, "hunter2")
				must(t, r.Finish())
				wantValue(t, v, moved, "hunter2")
				finished := copyDir(t, dir)

				opens := func(what, state string, record spec.SecretKey, passphrase string, of spec.SecretVersion) {
					t.Helper()
					putBack(t, dir, state)
					v, _ := s.unlocked(t, &record, passphrase)
					wantValue(t, v, of, "hunter2")
					v, _ = s.unlocked(t, &record, passphrase) // and once more, with what that start left
					wantValue(t, v, of, "hunter2")
					if s.source[:4] == "file" {
						if left, _ := filepath.Glob(filepath.Join(dir, "secrets.key.*")); len(left) > 0 {
							t.Errorf("%s: left %v", what, left)
						}
					}
					if _, err := v.Rotate(value("another one"), full); err != nil && s.source[:4] == "file" {
						t.Errorf("%s: no rotation afterwards: %v", what, err)
					}
				}
				opens("before", start, before, s.passphrase, secret)
				opens("prepared, not saved", prepared, before, s.passphrase, secret)
				opens("saved, not finished", prepared, r.Key, "battery staple", moved)
				opens("finished", finished, r.Key, "battery staple", moved)

				if s.source[:4] != "file" {
					return
				}
				putBack(t, dir, start) // while the new key was written
				write("secrets.key.new.tmp", "0a0b")
				opens("half written", copyDir(t, dir), before, "", secret)
				putBack(t, dir, finished)
				v, _ = loaded(t, s.source, &before) // an old store was brought back
				wantLocked(t, v, "isn't the one that the store was sealed with")
				if full {
					_, _ = v.Load(&r.Key)
					if _, err := v.Open(secret); err == nil {
						t.Error("what the earlier data key sealed still opens")
					}
				}
			})
		}
	}
}

// A rotation that couldn't be saved leaves things as they were, and so does one
// that said so although it was saved.
func TestRotateAbandoned(t *testing.T) {
	path := keyFile(t)
	v, record := opened(t, "file:"+path, nil)
	secret := sealed(t, v, dbPassword, 1, "hunter2")
	for _, full := range []bool{true, false} {
		r, err := v.Rotate(spec.SecretValue{}, full)
		must(t, err)
		if _, err := v.Rotate(spec.SecretValue{}, full); !errors.Is(err, spec.ErrUnavailable) {
			t.Errorf("a second rotation: %v", err)
		}
		_, err = v.Seal(secret, value("x"))
		if full != errors.Is(err, spec.ErrUnavailable) {
			t.Errorf("seal while the keys are rotated, full=%v: %v", full, err)
		}
		moved := secret
		if full {
			moved.Sealed, err = r.Reseal(secret)
			must(t, err)
		}
		must(t, r.Abandon())
		must(t, r.Finish()) // says nothing: it is over
		wantValue(t, v, secret, "hunter2")
		sealed(t, v, dbPassword, 2, "y")

		state := copyDir(t, filepath.Dir(path))
		w, _ := opened(t, "file:"+path, &r.Key)
		wantValue(t, w, moved, "hunter2")
		putBack(t, filepath.Dir(path), state)
		w, _ = opened(t, "file:"+path, record)
		wantValue(t, w, secret, "hunter2")
		if _, err := os.Stat(path + ".new"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the next start left the key that didn't come into use: %v", err)
		}
	}
}

// The new key can't take its place: it counts all the same, and the next
// rotation and the next start put it there.
func TestRotateUnplaced(t *testing.T) {
	path := keyFile(t)
	v, record := opened(t, "file:"+path, nil)
	r, err := v.Rotate(spec.SecretValue{}, true)
	must(t, err)
	must(t, os.Rename(path, path+".kept"))
	must(t, os.Mkdir(path, 0o700))
	if err := r.Finish(); err == nil || !strings.Contains(err.Error(), "the next start") {
		t.Errorf("%v", err)
	}
	secret := sealed(t, v, dbPassword, 1, "hunter2")
	must(t, os.Remove(path))
	must(t, os.Rename(path+".kept", path))
	last := rotate(t, v, spec.SecretValue{}, false)
	if !last.Compact {
		t.Error("it was forgotten that the file is to be compacted")
	}
	w, _ := opened(t, "file:"+path, last)
	wantValue(t, w, secret, "hunter2")
	w, _ = loaded(t, "file:"+path, record)
	wantLocked(t, w)
}

func TestRotateWithoutNewKey(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	must(t, os.WriteFile(filepath.Join(dir, "dunnage.key"), []byte(strings.Repeat("01", 32)), 0o400))
	v, _ := opened(t, "credential", nil)
	refused := func(want string) {
		t.Helper()
		if _, err := v.Rotate(spec.SecretValue{}, false); !errors.Is(err, spec.ErrRefused) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	refused("no new key: let the unit load one as credential dunnage.key.new")
	must(t, os.WriteFile(filepath.Join(dir, "dunnage.key.new"), []byte(strings.Repeat("02", 32)), 0o400))
	record := rotate(t, v, spec.SecretValue{}, false)
	refused("credential dunnage.key.new is the key in use") // and not back to the old one
	opened(t, "credential", record)

	v, _ = opened(t, "command:/bin/cat "+filepath.Join(dir, "dunnage.key"), nil)
	refused("prints the key in use")
	v, _ = loaded(t, "passphrase", nil)
	_, err := v.Unlock(value("correct horse"))
	must(t, err)
	refused("shorter than 8 characters")
}

// Seal, Open and rotations at once; the race detector watches the keys' memory.
func TestVaultFromManySides(t *testing.T) {
	v, _ := opened(t, "file:"+keyFile(t), nil)
	done := make(chan error)
	for range 4 {
		go func() {
			for i := range 50 {
				of := spec.SecretVersion{SecretID: dbPassword, Version: i}
				var err error
				if of.Sealed, err = v.Seal(of, value("hunter2")); err == nil {
					_, _ = v.Open(of) // a full rotation may have come between
				} else if !errors.Is(err, spec.ErrUnavailable) {
					done <- err
					return
				}
				v.Status()
			}
			done <- nil
		}()
	}
	for i := range 10 {
		rotate(t, v, spec.SecretValue{}, i%2 == 0)
	}
	for range 4 {
		must(t, <-done)
	}
}
