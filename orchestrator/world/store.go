package world

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"dunnage/spec"
)

// state is what the simulated store keeps.
type state struct {
	projects   map[string]spec.ProjectRecord
	releases   map[string]map[int]spec.Release
	replicas   map[string]spec.ReplicaRecord
	quarantine map[netip.Addr]spec.QuarantinedAddress
	secrets    map[spec.SecretID]spec.SecretRecord
	versions   map[versionKey]spec.SecretVersion
	key        *spec.SecretKey
	audit      []spec.AuditEntry
	receipts   map[string]map[int]spec.Receipt
}

// versionKey is what a store keeps a version of a secret under.
type versionKey struct {
	id spec.SecretID
	n  int
}

func newState() state {
	return state{
		projects: map[string]spec.ProjectRecord{}, releases: map[string]map[int]spec.Release{},
		replicas: map[string]spec.ReplicaRecord{}, quarantine: map[netip.Addr]spec.QuarantinedAddress{},
		secrets: map[spec.SecretID]spec.SecretRecord{}, versions: map[versionKey]spec.SecretVersion{},
		receipts: map[string]map[int]spec.Receipt{},
	}
}

// Store is the world's store.
type Store struct{ World *World }

// Load returns what was committed.
func (st Store) Load() (spec.State, error) {
	w := st.World
	w.mu.Lock()
	defer w.mu.Unlock()
	s := spec.State{Releases: map[string][]spec.Release{}}
	for _, k := range slices.Sorted(maps.Keys(w.state.projects)) {
		s.Projects = append(s.Projects, w.state.projects[k])
	}
	for project, rs := range w.state.releases {
		for _, n := range slices.Sorted(maps.Keys(rs)) {
			s.Releases[project] = append(s.Releases[project], rs[n])
		}
	}
	for _, k := range slices.Sorted(maps.Keys(w.state.replicas)) {
		s.Replicas = append(s.Replicas, w.state.replicas[k])
	}
	if w.Lie != LieNoQuarantine {
		s.Quarantine = slices.SortedFunc(maps.Values(w.state.quarantine), func(a, b spec.QuarantinedAddress) int { return a.Addr.Compare(b.Addr) })
	}
	w.state.loadSecrets(&s)
	for _, project := range slices.Sorted(maps.Keys(w.state.receipts)) {
		for _, r := range w.state.keptReceipts(project) {
			if r.Settled.IsZero() {
				s.Receipts = append(s.Receipts, r)
			}
		}
	}
	return s, nil
}

// Commit keeps c, or nothing of it.
func (st Store) Commit(c spec.Commit) error {
	w := st.World
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.state.refuse(c); err != nil {
		return err
	}
	effect, err := w.call("commit")
	if !effect {
		return err
	}
	s := &w.state
	for _, name := range c.DropProjects {
		delete(s.projects, name)
		delete(s.releases, name)
		delete(s.receipts, name)
	}
	for _, p := range c.Projects {
		s.projects[p.Name] = p
	}
	for _, r := range c.Releases {
		if s.releases[r.Project] == nil {
			s.releases[r.Project] = map[int]spec.Release{}
		}
		s.releases[r.Project][r.Release.Number] = r.Release
	}
	for _, r := range c.DropReleases {
		delete(s.releases[r.Project], r.Release.Number)
	}
	for _, r := range c.Replicas {
		s.replicas[r.ID] = r
	}
	for _, id := range c.DropReplicas {
		for _, a := range s.replicas[id].Addresses {
			w.released[a.Addr] = w.now
		}
		delete(s.replicas, id)
	}
	for _, q := range c.Quarantine {
		s.quarantine[q.Addr] = q
	}
	for _, a := range c.DropQuarantine {
		delete(s.quarantine, a)
	}
	s.keepSecrets(c)
	s.keepReceipts(c.Receipts)
	return err
}

// Receipts lists a project's kept receipts.
func (st Store) Receipts(project string) ([]spec.Receipt, error) {
	w := st.World
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state.keptReceipts(project), nil
}

func (s *state) keptReceipts(project string) []spec.Receipt {
	return slices.SortedFunc(maps.Values(s.receipts[project]), func(a, b spec.Receipt) int { return cmp.Compare(a.Number, b.Number) })
}

func (s *state) keepReceipts(rs []spec.Receipt) {
	for _, r := range rs {
		if s.receipts[r.Project] == nil {
			s.receipts[r.Project] = map[int]spec.Receipt{}
		}
		s.receipts[r.Project][r.Number] = r
		for _, old := range s.keptReceipts(r.Project)[:max(0, len(s.receipts[r.Project])-spec.KeptReceipts)] {
			delete(s.receipts[r.Project], old.Number)
		}
	}
}
