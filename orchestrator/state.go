package orchestrator

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// state mirrors the store. Readers may be anywhere; only save changes it, and
// only after the store has made the change durable.
type state struct {
	store Store

	mu         sync.Mutex
	projects   map[string]spec.ProjectRecord
	releases   map[string][]spec.Release // sorted by number
	replicas   map[string]spec.ReplicaRecord
	quarantine map[netip.Addr]time.Time
	secrets    map[spec.SecretID]spec.SecretRecord
	versions   map[spec.SecretID][]spec.SecretVersion // sorted by number; without what is sealed
	key        *spec.SecretKey                        // nil = there is none yet; changed with the vault held
	audited    spec.AuditEntry                        // the last one

	unsettled []spec.Receipt // at the start
}

func loadState(s Store) (*state, error) {
	loaded, err := s.Load()
	if err != nil {
		return nil, err
	}
	st := &state{
		store:    s,
		projects: map[string]spec.ProjectRecord{}, releases: map[string][]spec.Release{},
		replicas: map[string]spec.ReplicaRecord{}, quarantine: map[netip.Addr]time.Time{},
		secrets: map[spec.SecretID]spec.SecretRecord{}, versions: map[spec.SecretID][]spec.SecretVersion{},
		audited: loaded.Audited, unsettled: loaded.Receipts,
	}
	c := spec.Commit{
		Projects: loaded.Projects, Replicas: loaded.Replicas, Quarantine: loaded.Quarantine,
		Secrets: loaded.Secrets, Versions: loaded.Versions, Key: loaded.Key,
	}
	for project, rs := range loaded.Releases {
		for _, r := range rs {
			c.Releases = append(c.Releases, spec.ReleaseRecord{Project: project, Release: r})
		}
	}
	st.apply(c)
	return st, nil
}

// save makes c durable, then visible.
func (s *state) save(c spec.Commit) error {
	if err := s.store.Commit(c); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.apply(c)
	return nil
}

// apply changes the mirror. Called with mu held, or before it is shared.
func (s *state) apply(c spec.Commit) {
	for _, name := range c.DropProjects {
		delete(s.projects, name)
		delete(s.releases, name)
	}
	for _, p := range c.Projects {
		s.projects[p.Name] = p
	}
	for _, r := range c.Releases {
		rs := slices.DeleteFunc(slices.Clone(s.releases[r.Project]), func(x spec.Release) bool { return x.Number == r.Release.Number })
		rs = append(rs, r.Release)
		slices.SortFunc(rs, func(a, b spec.Release) int { return cmp.Compare(a.Number, b.Number) })
		s.releases[r.Project] = rs
	}
	for _, r := range c.DropReleases {
		s.releases[r.Project] = slices.DeleteFunc(slices.Clone(s.releases[r.Project]), func(x spec.Release) bool { return x.Number == r.Release.Number })
	}
	for _, r := range c.Replicas {
		s.replicas[r.ID] = r
	}
	for _, id := range c.DropReplicas {
		delete(s.replicas, id)
	}
	for _, q := range c.Quarantine {
		s.quarantine[q.Addr] = q.Until
	}
	for _, a := range c.DropQuarantine {
		delete(s.quarantine, a)
	}
	s.applySecrets(c)
}

func (s *state) project(name string) (spec.ProjectRecord, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.projects[name]
	return p, ok
}

func (s *state) projectNames() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.projects))
}

// history lists a project's releases, oldest first.
func (s *state) history(project string) []spec.Release {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.releases[project]
}

func (s *state) release(project string, number int) (spec.Release, bool) {
	for _, r := range s.history(project) {
		if r.Number == number {
			return r, true
		}
	}
	return spec.Release{}, false
}

func (s *state) replica(id string) (spec.ReplicaRecord, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.replicas[id]
	return r, ok
}

func (s *state) replicaRecords() []spec.ReplicaRecord {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []spec.ReplicaRecord
	for _, id := range slices.Sorted(maps.Keys(s.replicas)) {
		out = append(out, s.replicas[id])
	}
	return out
}

// desired is what should be true, for the planner.
func (s *state) desired() plan.Desired {
	s.mu.Lock()
	defer s.mu.Unlock()
	var d plan.Desired
	for _, name := range slices.Sorted(maps.Keys(s.projects)) {
		p := s.projects[name]
		project := plan.Project{Record: p}
		for _, r := range s.releases[name] {
			if r.Number == p.Desired {
				project.Release = r
			}
			if r.Number == p.Good {
				project.Good = &r
			}
		}
		switch {
		case !p.Down:
			d.Projects = append(d.Projects, project.KeepLeaving())
		case slices.ContainsFunc(slices.Collect(maps.Values(s.replicas)), func(r spec.ReplicaRecord) bool { return r.Project == name }):
			d.Down = append(d.Down, project)
		}
	}
	return d
}

// applySecrets is apply's part for secrets.
func (s *state) applySecrets(c spec.Commit) {
	for _, r := range c.Secrets {
		s.secrets[r.SecretID] = r
	}
	for _, v := range c.Versions {
		v.Sealed = nil
		vs := slices.DeleteFunc(slices.Clone(s.versions[v.SecretID]), func(x spec.SecretVersion) bool { return x.Version == v.Version })
		vs = append(vs, v)
		slices.SortFunc(vs, func(a, b spec.SecretVersion) int { return cmp.Compare(a.Version, b.Version) })
		s.versions[v.SecretID] = vs
	}
	for _, p := range c.DropVersions {
		s.versions[p.SecretID] = slices.DeleteFunc(slices.Clone(s.versions[p.SecretID]), func(x spec.SecretVersion) bool { return x.Pin() == p })
	}
	for _, id := range c.DropSecrets {
		delete(s.secrets, id)
		delete(s.versions, id)
	}
	if c.Key != nil {
		s.key = c.Key
	}
	if n := len(c.Audit); n > 0 {
		s.audited = c.Audit[n-1]
	}
}

func (s *state) lastAudited() spec.AuditEntry {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.audited
}

// secretIDs lists all secrets, those of the host first.
func (s *state) secretIDs() []spec.SecretID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.SortedFunc(maps.Keys(s.secrets), func(a, b spec.SecretID) int {
		return cmp.Or(cmp.Compare(a.Project, b.Project), cmp.Compare(a.Name, b.Name))
	})
}

// secretVersions lists the kept versions of a secret, oldest first.
func (s *state) secretVersions(id spec.SecretID) []spec.SecretVersion {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.versions[id])
}

// pinned are the versions that a desired or good release or a replica needs.
func (s *state) pinned() map[spec.SecretPin]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	needed := map[string][]int{}
	for name, p := range s.projects {
		needed[name] = append(needed[name], p.Desired, p.Good)
	}
	for _, r := range s.replicas {
		needed[r.Project] = append(needed[r.Project], r.Release)
	}
	out := map[spec.SecretPin]bool{}
	for project, numbers := range needed {
		for _, r := range s.releases[project] {
			if slices.Contains(numbers, r.Number) {
				for _, pins := range r.Secrets {
					for _, p := range pins {
						out[p] = true
					}
				}
			}
		}
	}
	return out
}
