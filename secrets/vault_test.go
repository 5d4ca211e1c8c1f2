package secrets

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dunnage/orchestrator"
	"dunnage/spec"
)

var _ orchestrator.Vault = (*Vault)(nil)

var dbPassword = spec.SecretID{Project: "shop", Name: "db-password"}

func value(s string) spec.SecretValue { return spec.NewSecretValue([]byte(s)) }

func newVault(t *testing.T, c Config) *Vault {
	t.Helper()
	v, err := NewVault(c)
	if err != nil {
		t.Fatal(err)
	}
	v.effort = spec.KDF{Time: 1, Memory: 64, Threads: 1} // TestPassphrase takes the real one
	return v
}

// loaded is a vault that has had the record.
func loaded(t *testing.T, source string, record *spec.SecretKey) (*Vault, *spec.SecretKey) {
	t.Helper()
	v := newVault(t, Config{Source: source})
	changed, err := v.Load(record)
	if err != nil {
		t.Fatal(err)
	}
	return v, changed
}

// opened is loaded, and insists that it is open.
func opened(t *testing.T, source string, record *spec.SecretKey) (*Vault, *spec.SecretKey) {
	t.Helper()
	v, changed := loaded(t, source, record)
	if s := v.Status(); s.Locked != "" {
		t.Fatal(s.Locked)
	}
	return v, changed
}

func sealed(t *testing.T, v *Vault, id spec.SecretID, version int, clear string) spec.SecretVersion {
	t.Helper()
	of := spec.SecretVersion{SecretID: id, Version: version, Nonce: "0123456789abcdef"}
	var err error
	if of.Sealed, err = v.Seal(of, value(clear)); err != nil {
		t.Fatal(err)
	}
	return of
}

func wantValue(t *testing.T, v *Vault, of spec.SecretVersion, want string) {
	t.Helper()
	got, err := v.Open(of)
	if err != nil {
		t.Error(err)
	} else if !got.Equal(value(want)) {
		t.Errorf("%s version %d opens to another value", of.SecretID, of.Version)
	}
}

func wantLocked(t *testing.T, v *Vault, why ...string) {
	t.Helper()
	s := v.Status()
	for _, w := range append(why, "secrets are locked: ") {
		if !strings.Contains(s.Locked, w) {
			t.Errorf("locked because %q, want %q in it", s.Locked, w)
		}
	}
	if strings.Contains(s.Locked, "\n") {
		t.Errorf("more than a line: %q", s.Locked)
	}
	_, err := v.Open(spec.SecretVersion{SecretID: dbPassword})
	_, sealErr := v.Seal(spec.SecretVersion{SecretID: dbPassword}, value("x"))
	_, rotateErr := v.Rotate(value("long enough"), false)
	for _, err := range []error{err, sealErr, rotateErr} {
		if !errors.Is(err, spec.ErrUnavailable) || spec.Text(err) != s.Locked {
			t.Errorf("a locked vault says %v, not %q", err, s.Locked)
		}
	}
}

func keyFile(t *testing.T) string { return filepath.Join(t.TempDir(), "secrets.key") }

func TestSealAndOpen(t *testing.T) {
	path := keyFile(t)
	v, record := opened(t, "file:"+path, nil)
	if record == nil || record.Source != "file" || len(record.Store) != 36 || record.Compact {
		t.Fatalf("first record %+v", record)
	}
	text, err := os.ReadFile(path)
	fi, statErr := os.Stat(path)
	if err != nil || statErr != nil || fi.Mode() != 0o400 || len(text) != 65 || text[64] != '\n' {
		t.Fatalf("key file: %d bytes, %v, %v %v", len(text), fi, err, statErr)
	}
	one := sealed(t, v, dbPassword, 1, "hunter2")
	two := sealed(t, v, dbPassword, 1, "hunter2")
	if bytes.Equal(one.Sealed, two.Sealed) {
		t.Error("the same value is sealed the same twice")
	}
	empty := sealed(t, v, dbPassword, 2, "")
	large := sealed(t, v, dbPassword, 3, strings.Repeat("x", spec.MaxSecret))

	again, changed := opened(t, "file:"+path, record)
	if changed != nil {
		t.Errorf("a record that nothing was to change came back: %+v", changed)
	}
	wantValue(t, again, one, "hunter2")
	wantValue(t, again, two, "hunter2")
	wantValue(t, again, empty, "")
	wantValue(t, again, large, strings.Repeat("x", spec.MaxSecret))
	if s := again.Status(); s.Source != "file "+path {
		t.Errorf("source %q", s.Source)
	}
}

// Of a sealed value any bit may be wrong, or it may be another's: there is an
// error that names the secret, never a value.
func TestTamperedValueDoesNotOpen(t *testing.T) {
	v, _ := opened(t, "file:"+keyFile(t), nil)
	other, _ := opened(t, "file:"+keyFile(t), nil)
	good := sealed(t, v, dbPassword, 4, "hunter2")
	refused := func(what string, of spec.SecretVersion) {
		t.Helper()
		got, err := v.Open(of)
		if err == nil || got.Reveal() != nil {
			t.Fatalf("%s: opened", what)
		}
		if !strings.Contains(err.Error(), "secret "+of.String()+", version ") || !strings.Contains(err.Error(), "set it again") {
			t.Errorf("%s: %v", what, err)
		}
		if errors.Is(err, spec.ErrUnavailable) {
			t.Errorf("%s: looks as if waiting helped: %v", what, err)
		}
	}
	for i := range good.Sealed {
		for bit := range 8 {
			bad := good
			bad.Sealed = bytes.Clone(good.Sealed)
			bad.Sealed[i] ^= 1 << bit
			refused(fmt.Sprintf("bit %d of byte %d", bit, i), bad)
		}
		cut := good
		cut.Sealed = good.Sealed[:i]
		refused(fmt.Sprintf("cut to %d bytes", i), cut)
	}
	longer := good
	longer.Sealed = append(bytes.Clone(good.Sealed), 0)
	refused("longer", longer)

	for what, change := range map[string]func(*spec.SecretVersion){
		"other version": func(of *spec.SecretVersion) { of.Version++ },
		"other nonce":   func(of *spec.SecretVersion) { of.Nonce = "fedcba9876543210" },
		"other name":    func(of *spec.SecretVersion) { of.Name = "db-passwors" },
		"other project": func(of *spec.SecretVersion) { of.Project = "shoq" },
		"no project":    func(of *spec.SecretVersion) { of.Project = "" },
		"name and project shifted": func(of *spec.SecretVersion) {
			of.Project, of.Name = "shopd", "b-password"
		},
		"exchanged":   func(of *spec.SecretVersion) { of.Sealed = sealed(t, v, dbPassword, 5, "other").Sealed },
		"other store": func(of *spec.SecretVersion) { of.Sealed = sealed(t, other, dbPassword, 4, "hunter2").Sealed },
	} {
		bad := good
		change(&bad)
		refused(what, bad)
	}
	wantValue(t, v, good, "hunter2")
}

// A key record with any bit wrong locks the vault, or opens as it should.
func TestTamperedKeyRecord(t *testing.T) {
	path := keyFile(t)
	v, record := opened(t, "file:"+path, nil)
	good := sealed(t, v, dbPassword, 1, "hunter2")
	text, err := json.Marshal(record)
	if err != nil {
		t.Fatal(err)
	}
	locked := 0
	for i := range text {
		for bit := range 8 {
			bad := bytes.Clone(text)
			bad[i] ^= 1 << bit
			var damaged spec.SecretKey
			if json.Unmarshal(bad, &damaged) != nil {
				continue
			}
			v, _ := loaded(t, "file:"+path, &damaged)
			if s := v.Status(); s.Locked == "" {
				wantValue(t, v, good, "hunter2")
			} else if locked++; !strings.Contains(s.Locked, "restore") && !strings.Contains(s.Locked, "bring back") && !strings.Contains(s.Locked, "start the agent with") {
				t.Errorf("byte %d bit %d: %q doesn't say what to do", i, bit, s.Locked)
			}
		}
	}
	if locked < 500 {
		t.Errorf("only %d of the damaged records were noticed", locked)
	}
	for what, change := range map[string]func(*spec.SecretKey){
		"empty":      func(k *spec.SecretKey) { *k = spec.SecretKey{} },
		"no check":   func(k *spec.SecretKey) { k.Check = nil },
		"cut check":  func(k *spec.SecretKey) { k.Check = k.Check[:16] },
		"not sealed": func(k *spec.SecretKey) { k.Sealed = nil },
		"a value for the data key": func(k *spec.SecretKey) {
			k.Sealed = good.Sealed
		},
	} {
		damaged := *record
		change(&damaged)
		v, _ := loaded(t, "file:"+path, &damaged)
		if v.Status().Locked == "" {
			t.Errorf("%s: opened", what)
		}
	}
}

func TestKeyFileIsCheckedAndNeverMadeAnew(t *testing.T) {
	path := keyFile(t)
	v, record := opened(t, "file:"+path, nil)
	good := sealed(t, v, dbPassword, 1, "hunter2")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	put := func(content string, mode os.FileMode) func() {
		return func() {
			must(t, os.Remove(path))
			must(t, os.WriteFile(path, []byte(content), 0o600))
			must(t, os.Chmod(path, mode))
		}
	}
	for what, c := range map[string]struct {
		harm func()
		want []string
	}{
		"others may read": {put(string(text), 0o440), []string{path, "mode 0440", "chmod 0400 " + path}},
		"all may read":    {put(string(text), 0o404), []string{"chmod 0400 " + path}},
		"another key":     {put(strings.Repeat("ab", 32)+"\n", 0o400), []string{"the key in " + path + " isn't the one", "restore the right one"}},
		"empty":           {put("", 0o400), []string{"64 hex digits", "restore"}},
		"half":            {put(string(text[:32]), 0o400), []string{"64 hex digits", "restore"}},
		"no hex":          {put(strings.Repeat("zz", 32), 0o400), []string{"64 hex digits", "restore"}},
		"long":            {put(strings.Repeat("a", 5000), 0o400), []string{"more than 256 bytes"}},
		"a directory":     {func() { must(t, os.Remove(path)); must(t, os.Mkdir(path, 0o700)) }, []string{"isn't a file"}},
		"missing":         {func() { must(t, os.Remove(path)) }, []string{"the key file " + path + " is missing; restore it from its copy"}},
		"link to nothing": {func() { must(t, os.Remove(path)); must(t, os.Symlink("/nowhere/key", path)) }, []string{"is a link to nothing"}},
	} {
		c.harm()
		v, changed := loaded(t, "file:"+path, record)
		wantLocked(t, v, c.want...)
		if changed != nil {
			t.Errorf("%s: the record changed", what)
		}
		if _, err := os.Stat(path); what == "missing" && err == nil {
			t.Error("a key file was made for a store that has a key record")
		}
		must(t, os.RemoveAll(path))
		must(t, os.WriteFile(path, text, 0o400))

		if changed, err := v.Unlock(spec.SecretValue{}); err != nil || changed != nil {
			t.Fatalf("%s, put right: %v", what, err)
		}
		wantValue(t, v, good, "hunter2")
	}
}

func TestKeyFileBehindLink(t *testing.T) {
	dir := t.TempDir()
	real, link := filepath.Join(dir, "usb", "real.key"), filepath.Join(dir, "secrets.key")
	must(t, os.Mkdir(filepath.Join(dir, "usb"), 0o700))
	_, record := opened(t, "file:"+real, nil)
	must(t, os.Symlink(real, link))
	v, _ := opened(t, "file:"+link, record)
	good := sealed(t, v, dbPassword, 1, "hunter2")
	record = rotate(t, v, spec.SecretValue{}, false)
	if to, err := os.Readlink(link); err != nil || to != real {
		t.Errorf("the link became %q, %v", to, err)
	}
	v, _ = opened(t, "file:"+link, record)
	wantValue(t, v, good, "hunter2")
}

// The record of a first start that wasn't saved: the key file stays, and counts.
func TestFirstStartTwice(t *testing.T) {
	path := keyFile(t)
	_, _ = opened(t, "file:"+path, nil)
	before, err := os.ReadFile(path)
	must(t, err)
	_, record := opened(t, "file:"+path, nil)
	after, err := os.ReadFile(path)
	must(t, err)
	if !bytes.Equal(before, after) || record == nil {
		t.Error("the key file was overwritten")
	}
	v, _ := loaded(t, "file:/nowhere/at/all/secrets.key", nil)
	wantLocked(t, v, "/nowhere/at/all/secrets.key")
}

func TestCredential(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	v, _ := loaded(t, "credential", nil)
	wantLocked(t, v, "no credential dunnage.key", "LoadCredential")

	raw := bytes.Repeat([]byte{7}, 32)
	text := hex.EncodeToString(raw)
	must(t, os.WriteFile(filepath.Join(dir, "dunnage.key"), []byte(text+"\n"), 0o440)) // as systemd has it
	v, record := opened(t, "credential", nil)
	good := sealed(t, v, dbPassword, 1, "hunter2")
	for _, same := range []string{text, strings.ToUpper(text), base64.StdEncoding.EncodeToString(raw) + "\n", base64.RawURLEncoding.EncodeToString(raw), string(raw)} {
		must(t, os.WriteFile(filepath.Join(dir, "other"), []byte(same), 0o400))
		v, _ := opened(t, "credential:other", record)
		wantValue(t, v, good, "hunter2")
		must(t, os.Remove(filepath.Join(dir, "other")))
	}
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	v, _ = loaded(t, "credential", record)
	wantLocked(t, v, "$CREDENTIALS_DIRECTORY")
}

func TestPassphrase(t *testing.T) {
	v, record := loaded(t, "passphrase", nil)
	if record != nil {
		t.Fatal("a record without a passphrase")
	}
	wantLocked(t, v, "no passphrase was set yet; `dunnage unlock` sets it")
	if k := v.Status(); !k.Passphrase || !k.Unset {
		t.Errorf("before the first passphrase: %+v", k)
	}
	if _, err := v.Unlock(value("seven77")); !errors.Is(err, spec.ErrRefused) {
		t.Errorf("short passphrase: %v", err)
	}
	v.effort = newPassphrase
	record, err := v.Unlock(value("correct horse"))
	if err != nil || record == nil || record.KDF == nil {
		t.Fatalf("first passphrase: %+v, %v", record, err)
	}
	if k := record.KDF; k.Time != 3 || k.Memory != 64<<10 || k.Threads != 4 || len(k.Salt) != 32 {
		t.Errorf("Argon2id with %+v", k)
	}
	good := sealed(t, v, dbPassword, 1, "hunter2")

	v, _ = loaded(t, "passphrase", record)
	wantLocked(t, v, "`dunnage unlock` opens them")
	if _, err := v.Unlock(value("correct house")); !errors.Is(err, spec.ErrRefused) || !strings.Contains(err.Error(), "the passphrase is wrong") {
		t.Errorf("wrong passphrase: %v", err)
	}
	wantLocked(t, v)
	if changed, err := v.Unlock(value("correct horse")); err != nil || changed != nil {
		t.Errorf("right passphrase: %v", err)
	}
	wantValue(t, v, good, "hunter2")
	if _, err := v.Unlock(value("correct house")); err == nil {
		t.Error("an open vault takes any passphrase")
	}
	wantValue(t, v, good, "hunter2")

	for what, harm := range map[string]func(*spec.KDF){
		"memory":  func(k *spec.KDF) { k.Memory = 1 << 31 },
		"time":    func(k *spec.KDF) { k.Time = 1 << 31 },
		"no time": func(k *spec.KDF) { k.Time = 0 },
		"threads": func(k *spec.KDF) { k.Threads = 255 },
		"none":    func(k *spec.KDF) { k.Threads = 0 },
		"salt":    func(k *spec.KDF) { k.Salt = nil },
	} {
		damaged, kdf := *record, *record.KDF
		damaged.KDF = &kdf
		harm(&kdf)
		v, _ := loaded(t, "passphrase", &damaged)
		if _, err := v.Unlock(value("correct horse")); err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func script(t *testing.T, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	must(t, os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o700))
	return path
}

func TestCommand(t *testing.T) {
	key := strings.Repeat("0a", 32)
	_, record := opened(t, "command:"+script(t, "echo $1")+" "+key, nil)
	for what, c := range map[string]struct {
		body string
		want []string
	}{
		"fails":      {"echo " + key + "; echo no route to the vault >&2; exit 3", []string{"exit status 3", "no route to the vault"}},
		"silent":     {"true", []string{"there is nothing"}},
		"no key":     {"echo hello-out-there", []string{"isn't a key"}},
		"another":    {"echo " + strings.Repeat("0b", 32), []string{"isn't the one"}},
		"endless":    {"exec cat /dev/zero", []string{"more than 4096 bytes"}},
		"never":      {"sleep 60", []string{"no key within 300ms"}},
		"no program": {"", nil},
	} {
		v := newVault(t, Config{Source: "command:" + script(t, c.body)})
		s := v.source.(commandSource)
		if what == "never" {
			s.timeout = 300e6
		}
		if what == "no program" {
			s.argv = []string{"/nowhere/key"}
			c.want = []string{"/nowhere/key", "no such file"}
		}
		v.source = s
		_, err := v.Load(record)
		must(t, err)
		wantLocked(t, v, append(c.want, s.argv[0])...)
		for _, leak := range []string{key, "hello-out-there"} {
			if strings.Contains(v.Status().Locked, leak) {
				t.Errorf("%s: %q has what the command printed", what, v.Status().Locked)
			}
		}
	}
	// Two keys, a line each, and a child that stays with its standard error.
	opened(t, "command:"+script(t, "sleep 5 >/dev/null & echo "+strings.Repeat("0b", 32)+"; echo "+key), record)
}

func TestSources(t *testing.T) {
	for _, good := range []string{"file:/var/lib/dunnage/secrets.key", "credential", "credential:my.key", "passphrase", "command:/bin/key a b"} {
		newVault(t, Config{Source: good})
	}
	for _, bad := range []string{"", "file", "file:", "file:secrets.key", "credential:", "credential:../x", "credential:..", "passphrase:x", "command", "command:", "command:key", "vault:/x"} {
		_, err := NewVault(Config{Source: bad})
		if !errors.Is(err, spec.ErrRefused) || !strings.Contains(err.Error(), fmt.Sprintf("--key-source %q", bad)) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := NewVault(Config{Source: "passphrase", Former: "nonsense"}); err == nil || !strings.Contains(err.Error(), `--former-key-source "nonsense": use file (`) {
		t.Errorf("a former source of nonsense: %v", err)
	}
}

// The store moves from one source to another: by the same key in both places, or
// by a rotation while the former one still opens it.
func TestChangeOfSource(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	path := keyFile(t)
	v, record := opened(t, "file:"+path, nil)
	good := sealed(t, v, dbPassword, 1, "hunter2")

	v, _ = loaded(t, "credential", record)
	wantLocked(t, v, "the store's key comes from another source (file) than --key-source credential", "--former-key-source file;", "credential dunnage.key")
	v, _ = loaded(t, "passphrase", record)
	wantLocked(t, v, "another source (file)", "--former-key-source file;")
	if s := v.Status().Locked; strings.Contains(s, "same key") || strings.Contains(s, "unlock") {
		t.Errorf("nonsense for a passphrase: %s", s)
	}
	v = newVault(t, Config{Source: "passphrase", Former: "file:" + path + ".moved"})
	_, err := v.Load(record)
	must(t, err)
	wantLocked(t, v, "--former-key-source hasn't the store's key: the key file "+path+".moved is missing")
	v = newVault(t, Config{Source: "passphrase", Former: "credential"})
	_, err = v.Load(record)
	must(t, err)
	wantLocked(t, v, "another source (file) than --key-source passphrase and --former-key-source credential")

	text, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "dunnage.key"), text, 0o400))
	v, changed := opened(t, "credential", record)
	if changed == nil || changed.Source != "credential" {
		t.Errorf("record %+v", changed)
	}
	wantValue(t, v, good, "hunter2")

	v = newVault(t, Config{Source: "passphrase", Former: "file:" + path})
	if changed, err := v.Load(record); err != nil || changed != nil {
		t.Fatalf("%+v, %v", changed, err)
	}
	wantValue(t, v, good, "hunter2")
	if k := v.Status(); k.Source != "file "+path || k.Next != "passphrase" {
		t.Errorf("opened by the former source: %+v", k)
	}
	record = rotate(t, v, value("correct horse"), false)
	if k := v.Status(); k.Source != "passphrase" || k.Next != "" {
		t.Errorf("moved: %+v", k)
	}
	if record.Source != "passphrase" || record.KDF == nil {
		t.Errorf("record %+v", record)
	}
	fresh := keyFile(t)
	v, _ = loaded(t, "file:"+fresh, record)
	wantLocked(t, v, "a passphrase, not from --key-source file; `dunnage unlock` opens them with the passphrase")
	if k := v.Status(); !k.Passphrase || k.Unset {
		t.Errorf("locked with a former passphrase: %+v", k)
	}
	_, err = v.Unlock(value("correct horse"))
	must(t, err)
	if k := v.Look(); k.Passphrase || k.Unset || k.Source != "passphrase" || k.Next != "file "+fresh || k.Lost != "" {
		t.Errorf("open: %+v", k)
	}
	wantValue(t, v, good, "hunter2")
	record = rotate(t, v, spec.SecretValue{}, true)
	if record.Source != "file" || record.KDF != nil {
		t.Errorf("record %+v", record)
	}
	opened(t, "file:"+fresh, record)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
