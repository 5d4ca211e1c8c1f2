package world

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"dunnage/spec"
)

func (s *state) loadSecrets(out *spec.State) {
	out.Secrets = slices.SortedFunc(maps.Values(s.secrets), func(a, b spec.SecretRecord) int { return compareIDs(a.SecretID, b.SecretID) })
	out.Versions = slices.SortedFunc(maps.Values(s.versions), func(a, b spec.SecretVersion) int {
		return cmp.Or(compareIDs(a.SecretID, b.SecretID), cmp.Compare(a.Version, b.Version))
	})
	for i := range out.Versions {
		out.Versions[i].Sealed = nil
	}
	if s.key != nil {
		key := *s.key
		out.Key = &key
	}
	if n := len(s.audit); n > 0 {
		out.Audited = s.audit[n-1]
	}
}

func compareIDs(a, b spec.SecretID) int {
	return cmp.Or(cmp.Compare(a.Project, b.Project), cmp.Compare(a.Name, b.Name))
}

// refuse refuses what the real store does as well: a mistake of the program.
func (s *state) refuse(c spec.Commit) error {
	for _, v := range c.Versions {
		if len(v.Sealed) == 0 {
			return fmt.Errorf("version %d of secret %s has nothing sealed", v.Version, v.SecretID)
		}
	}
	var last uint64
	if n := len(s.audit); n > 0 {
		last = s.audit[n-1].Seq
	}
	for _, e := range c.Audit {
		if e.Seq != last+1 {
			return fmt.Errorf("the audit record ends at entry %d, and %d was to follow", last, e.Seq)
		}
		last++
	}
	return nil
}

func (s *state) keepSecrets(c spec.Commit) {
	for _, r := range c.Secrets {
		s.secrets[r.SecretID] = r
	}
	for _, id := range c.DropSecrets {
		delete(s.secrets, id)
	}
	for _, v := range c.Versions {
		s.versions[versionKey{v.SecretID, v.Version}] = v
	}
	for _, p := range c.DropVersions {
		if k := (versionKey{p.SecretID, p.Version}); s.versions[k].Pin() == p {
			delete(s.versions, k)
		}
	}
	if c.Key != nil {
		key := *c.Key
		s.key = &key
	}
	s.audit = append(s.audit, c.Audit...)
	s.audit = slices.Delete(s.audit, 0, max(0, len(s.audit)-spec.KeptAudit))
}

// Sealed returns the version that p names, or wraps spec.ErrNotFound.
func (st Store) Sealed(p spec.SecretPin) (spec.SecretVersion, error) {
	w := st.World
	w.mu.Lock()
	defer w.mu.Unlock()
	v, ok := w.state.versions[versionKey{p.SecretID, p.Version}]
	if !ok || v.Pin() != p {
		return spec.SecretVersion{}, fmt.Errorf("version %d of secret %s: %w", p.Version, p.SecretID, spec.ErrNotFound)
	}
	v.Sealed = slices.Clone(v.Sealed)
	return v, nil
}

// Audit sends the entries from seq on until send returns an error.
func (st Store) Audit(seq uint64, send func(spec.AuditEntry) error) error {
	w := st.World
	w.mu.Lock()
	entries := slices.Clone(w.state.audit)
	w.mu.Unlock()
	for _, e := range entries {
		if e.Seq < seq {
			continue
		}
		if err := send(e); err != nil {
			return err
		}
	}
	return nil
}

// Compact clears the mark: nothing that was dropped is left here.
func (st Store) Compact() error {
	w := st.World
	w.mu.Lock()
	defer w.mu.Unlock()
	effect, err := w.call("compact")
	if effect && w.state.key != nil {
		w.state.key.Compact = false
	}
	return err
}

// loseSecrets forgets the secrets of lost projects.
func (s *state) loseSecrets(lost func(project string) bool) {
	mine := func(id spec.SecretID) bool { return id.Project != "" && lost(id.Project) }
	maps.DeleteFunc(s.secrets, func(id spec.SecretID, _ spec.SecretRecord) bool { return mine(id) })
	maps.DeleteFunc(s.versions, func(k versionKey, _ spec.SecretVersion) bool { return mine(k.id) })
}
