package storetest

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"dunnage/spec"

	"github.com/google/go-cmp/cmp"
)

func runSecrets(t *testing.T, open func(t *testing.T) Store, reopen func(t *testing.T, s Store) Store) {
	t.Run("secrets", func(t *testing.T) { secrets(t, open, reopen) })
	t.Run("a version that isn't the one meant", func(t *testing.T) { otherVersions(t, open(t)) })
	t.Run("key", func(t *testing.T) { key(t, open, reopen) })
	t.Run("audit", func(t *testing.T) { audit(t, open, reopen) })
	t.Run("audit out of order", func(t *testing.T) { auditOutOfOrder(t, open(t)) })
	t.Run("audit is bounded", func(t *testing.T) { auditBounded(t, open(t)) })
	t.Run("a version without what is sealed", func(t *testing.T) {
		s := open(t)
		v := Version("", "a", 1, "x")
		v.Sealed = nil
		if err := s.Commit(spec.Commit{Versions: []spec.SecretVersion{v}, Secrets: []spec.SecretRecord{record("", "a", 1)}}); err == nil {
			t.Error("committed")
		}
		check(t, s, spec.State{})
	})
	t.Run("drops secrets that aren't there", func(t *testing.T) {
		s := open(t)
		commit(t, s, spec.Commit{
			DropSecrets:  []spec.SecretID{{Name: "a"}},
			DropVersions: []spec.SecretPin{{SecretID: spec.SecretID{Name: "a"}, Version: 1}},
		})
		check(t, s, spec.State{})
	})
}

// Version is a version whose nonce is made of its number.
func Version(project, name string, n int, sealed string) spec.SecretVersion {
	return spec.SecretVersion{
		SecretID: spec.SecretID{Project: project, Name: name}, Version: n, Nonce: fmt.Sprintf("%016x", n),
		Created: time.Unix(int64(n), 0).UTC(), Before: n - 1, Sealed: []byte(sealed),
	}
}

func record(project, name string, current int) spec.SecretRecord {
	return spec.SecretRecord{SecretID: spec.SecretID{Project: project, Name: name}, Current: current, Next: current + 1}
}

func unsealed(vs ...spec.SecretVersion) []spec.SecretVersion {
	vs = slices.Clone(vs)
	for i := range vs {
		vs[i].Sealed = nil
	}
	return vs
}

func secrets(t *testing.T, open func(t *testing.T) Store, reopen func(t *testing.T, s Store) Store) {
	s := open(t)
	own1, own2, own300 := Version("p", "a", 1, "\x00one"), Version("p", "a", 2, "two"), Version("p", "a", 300, "three\xff")
	host, dashed := Version("", "a", 1, "four"), Version("p-q", "a", 1, "five")
	commit(t, s, spec.Commit{
		Secrets:  []spec.SecretRecord{record("p-q", "a", 1), record("p", "a", 300), record("", "a", 1)},
		Versions: []spec.SecretVersion{own300, dashed, own2, host, own1},
	})
	s = reopen(t, s)
	want := spec.State{
		Secrets:  []spec.SecretRecord{record("", "a", 1), record("p", "a", 300), record("p-q", "a", 1)},
		Versions: unsealed(host, own1, own2, own300, dashed),
	}
	check(t, s, want)
	for _, v := range []spec.SecretVersion{host, own1, own2, own300, dashed} {
		checkSealed(t, s, v)
	}

	again := own2
	again.Sealed = []byte("two under another key")
	commit(t, s, spec.Commit{
		Versions: []spec.SecretVersion{again}, DropVersions: []spec.SecretPin{own1.Pin(), dashed.Pin()},
		DropSecrets: []spec.SecretID{dashed.SecretID},
	})
	s = reopen(t, s)
	want.Secrets, want.Versions = want.Secrets[:2], unsealed(host, own2, own300)
	check(t, s, want)
	checkSealed(t, s, again)
	checkGone(t, s, own1.Pin())
	checkGone(t, s, dashed.Pin())

	if err := s.Compact(); err != nil {
		t.Fatal(err)
	}
	check(t, s, want)
	checkSealed(t, s, again)
	s = reopen(t, s)
	check(t, s, want)
	checkSealed(t, s, own300)
}

func otherVersions(t *testing.T, s Store) {
	v := Version("p", "a", 4, "mine")
	commit(t, s, spec.Commit{Versions: []spec.SecretVersion{v}})
	for what, change := range map[string]func(*spec.SecretPin){
		"nonce":   func(p *spec.SecretPin) { p.Nonce = "ffffffffffffffff" },
		"number":  func(p *spec.SecretPin) { p.Version = 5 },
		"project": func(p *spec.SecretPin) { p.Project = "" },
		"name":    func(p *spec.SecretPin) { p.Name = "b" },
	} {
		p := v.Pin()
		change(&p)
		if _, err := s.Sealed(p); !errors.Is(err, spec.ErrNotFound) {
			t.Errorf("another %s: %v", what, err)
		}
		commit(t, s, spec.Commit{DropVersions: []spec.SecretPin{p}})
	}
	checkSealed(t, s, v)
}

func key(t *testing.T, open func(t *testing.T) Store, reopen func(t *testing.T, s Store) Store) {
	s := open(t)
	k := spec.SecretKey{
		Store: "5ca1ab1e-0000-4000-8000-000000000000", Source: "passphrase", Check: []byte("check"), Sealed: []byte("sealed"),
		KDF: &spec.KDF{Salt: []byte("salt"), Time: 3, Memory: 65536, Threads: 4}, Created: time.Unix(9, 0).UTC(), Compact: true,
	}
	given := k
	commit(t, s, spec.Commit{Key: &given})
	commit(t, s, spec.Commit{}) // leaves it
	s = reopen(t, s)
	check(t, s, spec.State{Key: &k})
	if err := s.Compact(); err != nil {
		t.Fatal(err)
	}
	k.Compact = false
	check(t, s, spec.State{Key: &k})
	s = reopen(t, s)
	check(t, s, spec.State{Key: &k})
}

// Entry is entry n of an audit record.
func Entry(n uint64) spec.AuditEntry {
	uid := 1000
	return spec.AuditEntry{
		Seq: n, At: time.Unix(int64(n), 0).UTC(), Kind: spec.AuditSet, Secret: "p/a", Version: int(n), UID: &uid, User: "ann",
		Prev: fmt.Sprintf("%064x", n-1), Hash: fmt.Sprintf("%064x", n),
	}
}

// Entries are those from and to included.
func Entries(from, to uint64) []spec.AuditEntry {
	var out []spec.AuditEntry
	for n := from; n <= to; n++ {
		out = append(out, Entry(n))
	}
	return out
}

func audit(t *testing.T, open func(t *testing.T) Store, reopen func(t *testing.T, s Store) Store) {
	s := open(t)
	checkAudit(t, s, 0, nil)
	commit(t, s, spec.Commit{Audit: Entries(1, 1000)})
	commit(t, s, spec.Commit{Audit: Entries(1001, 1001)})
	s = reopen(t, s)
	check(t, s, spec.State{Audited: Entry(1001)})
	checkAudit(t, s, 0, Entries(1, 1001))
	checkAudit(t, s, 513, Entries(513, 1001))
	checkAudit(t, s, 1002, nil)

	// A reader may stop, and one that blocks holds up nobody.
	stop := errors.New("enough")
	var read []uint64
	err := s.Audit(999, func(e spec.AuditEntry) error {
		if read = append(read, e.Seq); len(read) == 1 {
			commit(t, s, spec.Commit{Audit: Entries(1002, 1002)})
			if err := s.Compact(); err != nil {
				t.Error(err)
			}
			return nil
		}
		return stop
	})
	if !errors.Is(err, stop) || !slices.Equal(read, []uint64{999, 1000}) {
		t.Errorf("stopped reader: read %v, %v", read, err)
	}
	checkAudit(t, s, 1001, Entries(1001, 1002))
}

func auditOutOfOrder(t *testing.T, s Store) {
	for what, entries := range map[string][]spec.AuditEntry{
		"later":    {Entry(2)},
		"none":     {{}},
		"a gap":    {Entry(1), Entry(3)},
		"the same": {Entry(1), Entry(1)},
		"backward": {Entry(1), Entry(2), Entry(1)},
	} {
		if err := s.Commit(spec.Commit{Projects: []spec.ProjectRecord{{Name: "p"}}, Audit: entries}); err == nil {
			t.Errorf("%s: committed", what)
		}
		check(t, s, spec.State{})
	}
	commit(t, s, spec.Commit{Audit: Entries(1, 2)})
	if err := s.Commit(spec.Commit{Audit: Entries(2, 2)}); err == nil {
		t.Error("an entry that is there: committed")
	}
	checkAudit(t, s, 0, Entries(1, 2))
}

func auditBounded(t *testing.T, s Store) {
	add := func(from, to uint64) {
		c := spec.Commit{}
		for n := from; n <= to; n++ {
			c.Audit = append(c.Audit, spec.AuditEntry{Seq: n})
		}
		commit(t, s, c)
	}
	const all = spec.KeptAudit + 1234
	for n := uint64(1); n < all; n += 20_000 {
		add(n, min(n+19_999, all))
	}
	check(t, s, spec.State{Audited: spec.AuditEntry{Seq: all}})
	next := uint64(all - spec.KeptAudit + 1)
	err := s.Audit(1, func(e spec.AuditEntry) error {
		if e.Seq != next {
			return fmt.Errorf("entry %d instead of %d", e.Seq, next)
		}
		next++
		return nil
	})
	if err != nil || next != all+1 {
		t.Fatalf("entries end before %d: %v", next, err)
	}
	add(all+1, all+1)
	stop := errors.New("enough")
	err = s.Audit(1, func(e spec.AuditEntry) error {
		if e.Seq != all-spec.KeptAudit+2 {
			t.Errorf("the first entry kept is %d", e.Seq)
		}
		return stop
	})
	if !errors.Is(err, stop) {
		t.Error(err)
	}
}

func checkSealed(t *testing.T, s Store, want spec.SecretVersion) {
	t.Helper()
	got, err := s.Sealed(want.Pin())
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("version (-want +got):\n%s", d)
	}
}

func checkGone(t *testing.T, s Store, p spec.SecretPin) {
	t.Helper()
	if v, err := s.Sealed(p); !errors.Is(err, spec.ErrNotFound) {
		t.Fatalf("%v: got %v, %v", p, v, err)
	}
}

func checkAudit(t *testing.T, s Store, from uint64, want []spec.AuditEntry) {
	t.Helper()
	var got []spec.AuditEntry
	if err := s.Audit(from, func(e spec.AuditEntry) error { got = append(got, e); return nil }); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("audit record from %d (-want +got):\n%s", from, d)
	}
}
