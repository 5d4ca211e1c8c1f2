// Package storetest checks that a store keeps what it is given. The same body
// runs over the real store and over the one of the simulated world.
package storetest

import (
	"net/netip"
	"testing"
	"time"

	"dunnage/spec"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// Store is what is tested.
type Store interface {
	Load() (spec.State, error)
	Commit(spec.Commit) error
	Sealed(spec.SecretPin) (spec.SecretVersion, error)
	Audit(seq uint64, send func(spec.AuditEntry) error) error
	Receipts(project string) ([]spec.Receipt, error)
	Compact() error
}

// Run tests the store that open returns; reopen returns it again after a
// restart.
func Run(t *testing.T, open func(t *testing.T) Store, reopen func(t *testing.T, s Store) Store) {
	runSecrets(t, open, reopen)
	t.Run("empty", func(t *testing.T) {
		check(t, open(t), spec.State{})
	})
	t.Run("keeps and drops", func(t *testing.T) { keepsAndDrops(t, open, reopen) })
	t.Run("receipts", func(t *testing.T) { receipts(t, open, reopen) })
	t.Run("forgets a project", func(t *testing.T) {
		s := open(t)
		release := spec.Release{Number: 1, Created: time.Unix(1, 0).UTC()}
		for _, p := range []string{"a", "a-b"} {
			commit(t, s, spec.Commit{
				Projects: []spec.ProjectRecord{{Name: p, Desired: 1}}, Releases: []spec.ReleaseRecord{{Project: p, Release: release}},
				Receipts: []spec.Receipt{Receipt(p, 1)},
			})
		}
		for range 2 {
			commit(t, s, spec.Commit{DropProjects: []string{"a", "never"}})
		}
		s = reopen(t, s)
		check(t, s, spec.State{Projects: []spec.ProjectRecord{{Name: "a-b", Desired: 1}}, Releases: map[string][]spec.Release{"a-b": {release}}})
		checkReceipts(t, s, "a", nil)
		checkReceipts(t, s, "a-b", []spec.Receipt{Receipt("a-b", 1)})
	})
	t.Run("replaces", func(t *testing.T) {
		s := open(t)
		commit(t, s, spec.Commit{Projects: []spec.ProjectRecord{{Name: "a", Desired: 1}}})
		commit(t, s, spec.Commit{Projects: []spec.ProjectRecord{{Name: "a", Desired: 2}}})
		check(t, s, spec.State{Projects: []spec.ProjectRecord{{Name: "a", Desired: 2}}})
	})
	t.Run("drops what isn't there", func(t *testing.T) {
		s := open(t)
		commit(t, s, spec.Commit{
			DropReplicas: []string{"x"}, DropQuarantine: []netip.Addr{netip.MustParseAddr("10.0.0.1")},
			DropReleases: []spec.ReleaseRecord{{Project: "p", Release: spec.Release{Number: 1}}},
		})
		check(t, s, spec.State{})
	})
}

func keepsAndDrops(t *testing.T, open func(t *testing.T) Store, reopen func(t *testing.T, s Store) Store) {
	s := open(t)
	release := func(n int) spec.Release {
		return spec.Release{Number: n, Created: time.Unix(int64(n), 0).UTC(), Reason: "deploy", Project: spec.Project{Name: "p"}}
	}
	replica := func(id string) spec.ReplicaRecord {
		return spec.ReplicaRecord{ReplicaKey: spec.ReplicaKey{ID: id, Project: "p"}, Exit: &spec.Exit{Code: 3}, Addresses: []spec.EndpointAddress{{Network: "p_default", Addr: netip.MustParseAddr("10.0.0.9")}}}
	}
	q := spec.QuarantinedAddress{Addr: netip.MustParseAddr("10.0.0.7"), Until: time.Unix(99, 0).UTC()}
	commit(t, s, spec.Commit{
		Projects: []spec.ProjectRecord{{Name: "q"}, {Name: "p", Desired: 300, Stopped: []string{"web"}}},
		Releases: []spec.ReleaseRecord{{Project: "p", Release: release(300)}, {Project: "p", Release: release(2)}, {Project: "p", Release: release(1)}},
		Replicas: []spec.ReplicaRecord{replica("b"), replica("a")}, Quarantine: []spec.QuarantinedAddress{q},
	})
	s = reopen(t, s)
	want := spec.State{
		Projects:   []spec.ProjectRecord{{Name: "p", Desired: 300, Stopped: []string{"web"}}, {Name: "q"}},
		Releases:   map[string][]spec.Release{"p": {release(1), release(2), release(300)}},
		Replicas:   []spec.ReplicaRecord{replica("a"), replica("b")},
		Quarantine: []spec.QuarantinedAddress{q},
	}
	check(t, s, want)
	commit(t, s, spec.Commit{
		DropReleases: []spec.ReleaseRecord{{Project: "p", Release: spec.Release{Number: 1}}},
		DropReplicas: []string{"a"}, DropQuarantine: []netip.Addr{q.Addr},
	})
	s = reopen(t, s)
	want.Releases["p"] = want.Releases["p"][1:]
	want.Replicas, want.Quarantine = want.Replicas[1:], nil
	check(t, s, want)
}

func commit(t *testing.T, s Store, c spec.Commit) {
	t.Helper()
	if err := s.Commit(c); err != nil {
		t.Fatal(err)
	}
}

func check(t *testing.T, s Store, want spec.State) {
	t.Helper()
	got, err := s.Load()
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got, cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}, netip.Prefix{})); d != "" {
		t.Fatalf("state (-want +got):\n%s", d)
	}
}
