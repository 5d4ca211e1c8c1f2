package store_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"dunnage/spec"
	"dunnage/store"
	"dunnage/store/storetest"
)

const pageSize = 4096

// A file with a page that isn't what was written is refused, or holds what it
// held: bbolt itself panics on most of these, and where nobody can recover.
func TestOpenRefusesDamagedPages(t *testing.T) {
	whole, want := filled(t)
	pages := len(whole) / pageSize
	var r *rand.Rand
	random := func(b []byte) {
		for i := range b {
			b[i] = byte(r.Uint32())
		}
	}
	for name, damage := range map[string]func(page []byte){
		"random bytes all over": random,
		"random bytes in part": func(page []byte) {
			from := r.IntN(pageSize - 256)
			random(page[from : from+256])
		},
		"zeros":               func(page []byte) { clear(page) },
		"another page":        func(page []byte) { copy(page, whole[r.IntN(pages)*pageSize:][:pageSize]) },
		"a wrong kind":        func(page []byte) { random(page[8:10]) },
		"a far overflow":      func(page []byte) { binary.NativeEndian.PutUint32(page[12:], 1<<31) },
		"too many elements":   func(page []byte) { binary.NativeEndian.PutUint16(page[10:], 0xffff) },
		"a wild element":      func(page []byte) { random(page[16:32]) },
		"a circle":            func(page []byte) { copy(page[24:32], page[:8]) },
		"a wrong page number": func(page []byte) { page[0]++ },
	} {
		refused := 0
		r = rand.New(rand.NewPCG(1, 2))
		for id := 2; id < pages; id++ {
			data := append([]byte{}, whole...)
			page := data[id*pageSize : (id+1)*pageSize]
			if binary.NativeEndian.Uint64(page) != uint64(id) {
				continue // the inside of a long value: its text has no check of its own
			}
			damage(page)
			if refuses(t, fmt.Sprintf("%s on page %d", name, id), data, want) {
				refused++
			}
		}
		if refused == 0 {
			t.Errorf("%s: never refused", name)
		}
	}
}

// One of the two meta pages may be damaged: the store is what the other one says,
// which may be the change before the last, and says that it may be. After the next
// change both are whole.
func TestOpenDoubtsOneMetaPage(t *testing.T) {
	whole, _ := filled(t)
	for what, damage := range map[string]func(page []byte){
		"zeros":     func(page []byte) { clear(page) },
		"one bit":   func(page []byte) { page[16+48] ^= 1 }, // of the transaction's number
		"undamaged": func([]byte) {},
	} {
		for id := range 2 {
			path := filepath.Join(t.TempDir(), "dunnage.db")
			data := append([]byte{}, whole...)
			damage(data[id*pageSize : (id+1)*pageSize])
			write(t, path, data)
			s := open(t, path)
			doubt := s.Doubt()
			if told := strings.Contains(doubt, fmt.Sprintf("page %d of the store %s is damaged", id, path)); told != (what != "undamaged") || !told && doubt != "" {
				t.Errorf("%s, page %d: %q", what, id, doubt)
			}
			if err := s.Commit(spec.Commit{Projects: []spec.ProjectRecord{{Name: "new"}}}); err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			again := open(t, path)
			if doubt := again.Doubt(); doubt != "" {
				t.Errorf("%s, page %d: after a change %q", what, id, doubt)
			}
			if err := again.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A list of free pages, which others write, is checked as well.
func TestOpenRefusesDamagedFreeList(t *testing.T) {
	whole, want := filled(t)
	path := filepath.Join(t.TempDir(), "dunnage.db")
	write(t, path, whole)
	db, err := bbolt.Open(path, 0o600, nil) // writes the list
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	listed, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if refuses(t, "undamaged", listed, want) {
		t.Fatal("the file with a list of free pages is refused")
	}
	id := -1
	for i := 2; i < len(listed)/pageSize; i++ {
		if page := listed[i*pageSize:]; binary.NativeEndian.Uint64(page) == uint64(i) && page[8] == 0x10 {
			id = i // the last one is the one in use: pages are taken from the front, and this was free
		}
	}
	if id < 0 {
		t.Fatal("bbolt wrote no list")
	}
	for name, damage := range map[string]func(page []byte){
		"zeros":                  func(page []byte) { clear(page) },
		"too many":               func(page []byte) { binary.NativeEndian.PutUint16(page[10:], 0xfffe) },
		"far too many":           func(page []byte) { page[10], page[11], page[23] = 0xff, 0xff, 0x0f },
		"a page that is in use":  func(page []byte) { binary.NativeEndian.PutUint64(page[16:], uint64(id)) },
		"a page that is nowhere": func(page []byte) { binary.NativeEndian.PutUint64(page[16:], 1<<40) },
	} {
		data := append([]byte{}, listed...)
		damage(data[id*pageSize:])
		if !refuses(t, name, data, want) {
			t.Errorf("%s in the list of free pages: accepted", name)
		}
	}
}

// refuses opens and loads a store of these bytes, and fails the test if it
// isn't refused with a next step and holds anything but want.
func refuses(t *testing.T, what string, data []byte, want everything) bool {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dunnage.db")
	write(t, path, data)
	s, err := store.Open(path)
	var got everything
	if err == nil {
		defer s.Close() //nolint:errcheck // only read
		got, err = readAll(s)
	}
	if err != nil {
		if !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "restore it from a backup") {
			t.Errorf("%s: error %q names no file or no next step", what, err)
		}
		return true
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: opened, and what it holds has changed", what)
	}
	return false
}

// everything is what can be read of a store.
type everything struct {
	state    spec.State
	sealed   []spec.SecretVersion
	audit    []spec.AuditEntry
	receipts []spec.Receipt
}

func readAll(s *store.Store) (e everything, err error) {
	if e.state, err = s.Load(); err != nil {
		return e, err
	}
	for _, v := range e.state.Versions {
		sealed, err := s.Sealed(v.Pin())
		if err != nil {
			return e, err
		}
		e.sealed = append(e.sealed, sealed)
	}
	for _, p := range e.state.Projects {
		rs, err := s.Receipts(p.Name)
		if err != nil {
			return e, err
		}
		e.receipts = append(e.receipts, rs...)
	}
	return e, s.Audit(0, func(a spec.AuditEntry) error { e.audit = append(e.audit, a); return nil })
}

// filled is a store with trees of several pages, and free pages among them.
func filled(t *testing.T) ([]byte, everything) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dunnage.db")
	s := open(t, path)
	for n := range 3 {
		var c spec.Commit
		for i := range 60 {
			project := fmt.Sprintf("project-%02d", i)
			c.Replicas = append(c.Replicas, spec.ReplicaRecord{ReplicaKey: spec.ReplicaKey{ID: fmt.Sprintf("%s-web-%d", project, n), Project: project, Service: "web"}})
			c.Projects = append(c.Projects, spec.ProjectRecord{Name: project, Desired: n})
			c.Receipts = append(c.Receipts, spec.Receipt{Project: project, Number: n + 1, Release: n + 1, Drained: i})
			if i%20 == 0 {
				c.Releases = append(c.Releases, spec.ReleaseRecord{Project: project, Release: spec.Release{
					Number: n + 1, Reason: strings.Repeat("why \"not\"? ", 600), Project: spec.Project{Name: project},
				}})
			}
		}
		for i := range 30 {
			name, sealed := fmt.Sprintf("secret-%02d", i), fmt.Sprintf("sealed %d ", n)
			if i == 7 {
				sealed = strings.Repeat(sealed, 1000)
			}
			c.Secrets = append(c.Secrets, spec.SecretRecord{SecretID: spec.SecretID{Name: name}, Current: n + 1, Next: n + 2})
			c.Versions = append(c.Versions, storetest.Version("", name, n+1, sealed))
		}
		c.Key = &spec.SecretKey{Store: "store", Sealed: []byte("sealed")}
		c.Audit = storetest.Entries(uint64(30*n+1), uint64(30*n+30))
		c.Quarantine = []spec.QuarantinedAddress{{Addr: netip.MustParseAddr("10.0.0.7")}}
		if err := s.Commit(c); err != nil {
			t.Fatal(err)
		}
	}
	want, err := readAll(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data[:len(data)/pageSize*pageSize], want
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
