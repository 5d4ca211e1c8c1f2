package secrets

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dunnage/spec"
)

// A key that goes away while the vault is open is missed, and nothing is touched
// by looking; a locked vault says what keeps it so now.
func TestLook(t *testing.T) {
	path := keyFile(t)
	v, record := opened(t, "file:"+path, nil)
	lost := func(v *Vault, want string) {
		t.Helper()
		if s := v.Look(); s.Locked != "" || want == "" != (s.Lost == "") || !strings.Contains(s.Lost, want) || strings.Contains(s.Lost, "reset-key") {
			t.Errorf("%+v, want lost: %q", s, want)
		}
	}
	lost(v, "")
	must(t, os.Chmod(path, 0o644))
	lost(v, "chmod 0400")
	must(t, os.Chmod(path, 0o400))
	must(t, os.Rename(path, path+".away"))
	lost(v, "is missing")
	w, _ := loaded(t, "file:"+path, record)
	wantLocked(t, w, "is missing", "`dunnage secret reset-key`")

	must(t, os.Rename(path+".away", path))
	must(t, os.Chmod(path, 0o644))
	w.Look()
	wantLocked(t, w, "mode 0644")
	must(t, os.Chmod(path, 0o400))
	w.Look()
	wantLocked(t, w, "the key is there again: `dunnage unlock` opens them")
	_, err := w.Unlock(spec.SecretValue{})
	must(t, err)
	lost(w, "")

	r, err := v.Rotate(spec.SecretValue{}, false) // its key lies beside the other
	must(t, err)
	lost(v, "")
	must(t, r.Finish())
	lost(v, "")
	lost(w, "isn't the one")

	damaged := r.Key
	damaged.Sealed = []byte("rubbish")
	w, _ = loaded(t, "file:"+path, &damaged)
	w.Look()
	wantLocked(t, w, "record is damaged")
}

// The reasons of a store that has no key yet are those of now, too.
func TestLookAtFirstKey(t *testing.T) {
	path := keyFile(t)
	must(t, os.WriteFile(path, []byte("x"), 0o644))
	v, _ := loaded(t, "file:"+path, nil)
	wantLocked(t, v, "mode 0644")
	must(t, os.Remove(path))
	v.Look()
	wantLocked(t, v, "isn't there yet; `dunnage unlock` makes it")
	v, _ = loaded(t, "passphrase", nil)
	v.Look()
	wantLocked(t, v, "no passphrase was set yet")
}

// reset does all that the agent does.
func reset(t *testing.T, v *Vault, passphrase string) *spec.SecretKey {
	t.Helper()
	r, err := v.Reset(value(passphrase))
	must(t, err)
	must(t, r.Finish())
	return &r.Key
}

func TestReset(t *testing.T) {
	path := keyFile(t)
	v, record := opened(t, "file:"+path, nil)
	good := sealed(t, v, dbPassword, 1, "hunter2")
	refused := func(v *Vault, want string) {
		t.Helper()
		if _, err := v.Reset(value("long enough")); !errors.Is(err, spec.ErrRefused) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	refused(v, "aren't locked")

	must(t, os.Rename(path, path+".away"))
	v, _ = loaded(t, "file:"+path, record)
	must(t, os.WriteFile(path, []byte(strings.Repeat("ab", 32)), 0o400))
	refused(v, "there is a key file "+path+" already")
	must(t, os.Remove(path))
	must(t, os.Link(path+".away", path))
	refused(v, "the key is there")
	must(t, os.Remove(path))

	start := copyDir(t, filepath.Dir(path))
	r, err := v.Reset(spec.SecretValue{})
	must(t, err)
	if r.Key.Store == record.Store || !r.Key.Compact {
		t.Errorf("first key %+v of %+v", r.Key, record)
	}
	wantLockedStill(t, v)
	prepared := copyDir(t, filepath.Dir(path))
	must(t, r.Finish())
	fresh := sealed(t, v, dbPassword, 1, "new")
	wantValue(t, v, fresh, "new")
	if _, err := v.Open(good); err == nil {
		t.Error("opens what another key sealed")
	}
	again, _ := opened(t, "file:"+path, &r.Key)
	wantValue(t, again, fresh, "new")

	// Killed before it was saved, it can be done again; after that it counts.
	putBack(t, filepath.Dir(path), prepared)
	v, _ = loaded(t, "file:"+path, record)
	wantLocked(t, v, "is missing")
	second := reset(t, v, "")
	opened(t, "file:"+path, second)
	putBack(t, filepath.Dir(path), prepared)
	again, _ = opened(t, "file:"+path, &r.Key)
	wantValue(t, again, fresh, "new")

	// What couldn't be saved is taken back.
	putBack(t, filepath.Dir(path), start)
	v, _ = loaded(t, "file:"+path, record)
	r, err = v.Reset(spec.SecretValue{})
	must(t, err)
	must(t, r.Abandon())
	wantLocked(t, v, "is missing")
	must(t, os.Rename(path+".away", path))
	_, err = v.Unlock(spec.SecretValue{})
	must(t, err)
	wantValue(t, v, good, "hunter2")
}

func wantLockedStill(t *testing.T, v *Vault) {
	t.Helper()
	if v.Status().Locked == "" {
		t.Error("open before the new key is saved")
	}
}

// A forgotten passphrase, a damaged record, another source: each has the way out.
func TestResetOthers(t *testing.T) {
	v, _ := loaded(t, "passphrase", nil)
	if _, err := v.Reset(value("correct horse")); !errors.Is(err, spec.ErrRefused) {
		t.Errorf("reset without any key: %v", err)
	}
	record, err := v.Unlock(value("correct horse"))
	must(t, err)
	v, _ = loaded(t, "passphrase", record)
	if _, err := v.Reset(value("short")); !errors.Is(err, spec.ErrRefused) {
		t.Errorf("short passphrase: %v", err)
	}
	record = reset(t, v, "battery staple")
	v, _ = loaded(t, "passphrase", record)
	_, err = v.Unlock(value("battery staple"))
	must(t, err)

	path := keyFile(t)
	v, _ = loaded(t, "file:"+path, record)
	record = reset(t, v, "")
	opened(t, "file:"+path, record)
	damaged := *record
	damaged.Sealed = []byte("rubbish")
	v, _ = loaded(t, "file:"+path, &damaged)
	wantLocked(t, v, "`dunnage secret reset-key`")
	opened(t, "file:"+path, reset(t, v, ""))
}
