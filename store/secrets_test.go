package store_test

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"dunnage/spec"
	"dunnage/store"
	"dunnage/store/storetest"
)

// A record that isn't what its key says, or no record at all, is refused at
// Load, with what and where.
func TestLoadRefusesDamagedSecrets(t *testing.T) {
	whole, other := storetest.Version("p", "a", 1, "x"), storetest.Version("p", "a", 2, "x")
	bare := whole
	bare.Sealed = nil
	version := "p\x00a\x00" + string(number(1))
	for name, tc := range map[string]struct {
		bucket, key string
		value       any // a string stands as it is
		want        string
	}{
		"secret: no JSON":        {"secrets", "p\x00a", "{", `secrets: "p\x00a": unexpected end`},
		"secret: not text":       {"secrets", "p\x00a", "{\"name\":\"\xff\"}", `secrets: "p\x00a" isn't text`},
		"secret: another name":   {"secrets", "p\x00a", spec.SecretRecord{SecretID: spec.SecretID{Project: "p", Name: "b"}}, `secrets: "p\x00a" is the record of p/b`},
		"secret: of the host":    {"secrets", "p\x00a", spec.SecretRecord{SecretID: spec.SecretID{Name: "a"}}, `secrets: "p\x00a" is the record of a`},
		"version: no JSON":       {"versions", version, "]", `versions of secrets: "p\x00a\x00`},
		"version: not text":      {"versions", version, "\xff", `isn't text`},
		"version: another one":   {"versions", version, other, `is version 2 of p/a`},
		"version: another name":  {"versions", "p\x00b\x00" + string(number(1)), whole, `is version 1 of p/a`},
		"version: nothing there": {"versions", version, bare, `version 1 of p/a has nothing sealed`},
		"version: empty":         {"versions", version, strings.Replace(encode(t, whole), `"eA=="`, `""`, 1), `version 1 of p/a has nothing sealed`},
		"version: no base64":     {"versions", version, strings.Replace(encode(t, whole), `"eA=="`, `{}`, 1), `version 1 of p/a has nothing sealed`},
		"key: no JSON":           {"keys", "data", "", `key of secrets: "data"`},
		"key: not text":          {"keys", "data", "{\"store\":\"\xfe\"}", `key of secrets: "data" isn't text`},
		"audit: no JSON":         {"audit", string(number(3)), "{}}", `audit record: "\x00\x00\x00\x00\x00\x00\x00\x03"`},
		"audit: another number":  {"audit", string(number(3)), storetest.Entry(4), `is entry 4`},
		"audit: a short key":     {"audit", "\xff", storetest.Entry(4), `"\xff" is entry 4`},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "dunnage.db")
			if err := open(t, path).Close(); err != nil {
				t.Fatal(err)
			}
			text, ok := tc.value.(string)
			if !ok {
				text = encode(t, tc.value)
			}
			raw(t, path, tc.bucket, tc.key, text)
			_, err := open(t, path).Load()
			refused(t, err, path, tc.want)
		})
	}
}

// Damage that Load doesn't look for is refused where it is read.
func TestReadRefusesDamage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dunnage.db")
	s := open(t, path)
	v := storetest.Version("p", "a", 1, "x")
	if err := errors.Join(s.Commit(spec.Commit{Versions: []spec.SecretVersion{v}, Audit: storetest.Entries(1, 3)}), s.Close()); err != nil {
		t.Fatal(err)
	}
	raw(t, path, "versions", "p\x00a\x00"+string(number(1)), strings.Replace(encode(t, v), `"eA=="`, `"not base64"`, 1))
	raw(t, path, "audit", string(number(2)), encode(t, storetest.Entry(1)))
	s = open(t, path)
	if _, err := s.Load(); err != nil {
		t.Fatal(err)
	}
	_, err := s.Sealed(v.Pin())
	refused(t, err, path, `versions of secrets: "p\x00a\x00`)
	refused(t, s.Audit(1, func(spec.AuditEntry) error { return nil }), path, `"\x00\x00\x00\x00\x00\x00\x00\x02" is entry 1`)
}

func refused(t *testing.T, err error, path, want string) {
	t.Helper()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, part := range []string{path, want, "restore it from a backup"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q doesn't say %q", err, part)
		}
	}
}

func encode(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func number(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// A reader that is overtaken by the dropping of old entries is told so: what it
// got wouldn't be a chain.
func TestAuditOvertaken(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "dunnage.db"))
	add := func(from, to uint64) {
		var c spec.Commit
		for n := from; n <= to; n++ {
			c.Audit = append(c.Audit, spec.AuditEntry{Seq: n})
		}
		if err := s.Commit(c); err != nil {
			t.Fatal(err)
		}
	}
	add(1, 300)
	var last uint64
	err := s.Audit(1, func(e spec.AuditEntry) error {
		if e.Seq == 1 {
			add(301, 50_000)
			add(50_001, spec.KeptAudit+1000)
		}
		last = e.Seq
		return nil
	})
	if want := fmt.Sprintf("entries %d to 1000 were dropped", last+1); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v doesn't say %q", err, want)
	}
}

// thousands is a store with 10,000 secrets.
func thousands(t testing.TB, path string) *store.Store {
	t.Helper()
	s, err := store.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	var c spec.Commit
	for n := range 10_000 {
		set := change(uint64(n + 1))
		c.Secrets, c.Versions, c.Audit = append(c.Secrets, set.Secrets...), append(c.Versions, set.Versions...), append(c.Audit, set.Audit...)
	}
	if err := s.Commit(c); err != nil {
		t.Fatal(err)
	}
	return s
}

// change is what a new version of a secret commits; each n is of another one.
func change(n uint64) spec.Commit {
	name := fmt.Sprintf("secret-%05d", n*7919%10_007) // all over the tree
	return spec.Commit{
		Secrets:  []spec.SecretRecord{{SecretID: spec.SecretID{Name: name}, Current: 1, Next: 2}},
		Versions: []spec.SecretVersion{storetest.Version("", name, int(n), strings.Repeat("sealed ", 20))},
		Audit:    storetest.Entries(n, n),
	}
}

// With 10,000 secrets, Load keeps nothing of what is sealed, and a commit writes
// the pages from the changed records up to the roots: no more for all the others.
func TestThousands(t *testing.T) {
	s := thousands(t, filepath.Join(t.TempDir(), "dunnage.db"))
	st, err := s.Load()
	if err != nil || len(st.Versions) != 10_000 || len(st.Secrets) < 9_900 {
		t.Fatalf("%d versions of %d secrets, %v", len(st.Versions), len(st.Secrets), err)
	}
	for _, v := range st.Versions {
		if v.Sealed != nil || v.Nonce == "" {
			t.Fatalf("got %+v", v)
		}
	}
	for n := uint64(10_001); n <= 10_020; n++ {
		before := store.PagesWritten(s)
		if err := s.Commit(change(n)); err != nil {
			t.Fatal(err)
		}
		if got := store.PagesWritten(s) - before; got == 0 || got > 20 { // about 10: three trees of two to three levels, a page of each may split, the root
			t.Errorf("a new version wrote %d pages", got)
		}
	}
}

func BenchmarkLoad10000(b *testing.B) {
	s := thousands(b, filepath.Join(b.TempDir(), "dunnage.db"))
	for b.Loop() {
		if _, err := s.Load(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpen10000(b *testing.B) {
	path := filepath.Join(b.TempDir(), "dunnage.db")
	if err := thousands(b, path).Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s, err := store.Open(path)
		if err := errors.Join(err, s.Close()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSet10000(b *testing.B) {
	s := thousands(b, filepath.Join(b.TempDir(), "dunnage.db"))
	n := uint64(10_000)
	for b.Loop() {
		n++
		if err := s.Commit(change(n)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCompact10000(b *testing.B) {
	s := thousands(b, filepath.Join(b.TempDir(), "dunnage.db"))
	for b.Loop() {
		if err := s.Compact(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkBbolt is what bbolt's own commit of one record costs.
func BenchmarkBbolt(b *testing.B) {
	db, err := bbolt.Open(filepath.Join(b.TempDir(), "bare.db"), 0o600, &bbolt.Options{FreelistType: bbolt.FreelistMapType, NoFreelistSync: true})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // nothing in it is wanted
	n := uint64(0)
	for b.Loop() {
		n++
		err := db.Update(func(tx *bbolt.Tx) error {
			bucket, err := tx.CreateBucketIfNotExists([]byte("b"))
			if err != nil {
				return err
			}
			return bucket.Put(number(n), make([]byte, 350))
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}
