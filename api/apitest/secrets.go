package apitest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"dunnage/spec"
)

// secret is a secret with its values, oldest first, and who uses it.
type secret struct {
	values  [][]byte
	current int // version
	users   []string
	behind  []spec.SecretUse
}

// lock is how the fake's secrets are opened.
type lock struct {
	source     string
	passphrase []byte
	why        string // locked
	next, lost string // as in spec.KeyStatus
}

// UseSecret makes services, as "project/service", use a secret, which may come
// later.
func (f *Fake) UseSecret(id spec.SecretID, services ...string) {
	f.locked(func() { f.secret(id).users = services })
}

// LeaveBehind makes a project run another version of a secret than the current one.
func (f *Fake) LeaveBehind(id spec.SecretID, uses ...spec.SecretUse) {
	f.locked(func() { f.secret(id).behind = uses })
}

// LockSecrets makes a passphrase the source of the key, and locks: with an empty
// one until the first is set.
func (f *Fake) LockSecrets(passphrase string) {
	f.locked(func() {
		f.lock = lock{source: "passphrase", passphrase: []byte(passphrase), why: "secrets are locked: nobody has entered the passphrase; `dunnage unlock` opens them with the passphrase"}
		f.problems = []string{f.lock.why}
	})
}

// LoseKey locks until the next Unlock finds the key file again.
func (f *Fake) LoseKey() {
	f.locked(func() { f.lock.why = "there is no key file" })
}

// MoveKey makes another source the one that the next rotation moves the key to.
func (f *Fake) MoveKey(next string) { f.locked(func() { f.lock.next = next }) }

// MissKey says why the key of open secrets isn't in its place.
func (f *Fake) MissKey(why string) { f.locked(func() { f.lock.lost = why }) }

// SpoilAudit changes an entry of the audit record after the fact.
func (f *Fake) SpoilAudit(seq int) { f.locked(func() { f.entries[seq-1].User = "mallory" }) }

// Refused lists the attempts that were refused for want of rights.
func (f *Fake) Refused() (out []string) {
	f.locked(func() {
		for _, e := range f.entries {
			if e.Refused != "" {
				out = append(out, fmt.Sprintf("%s %s by %s: %s", e.Kind, e.Secret, e.User, e.Refused))
			}
		}
	})
	return out
}

// secret finds or makes a secret; mu is held.
func (f *Fake) secret(id spec.SecretID) *secret {
	s := f.secrets[id]
	if s == nil {
		s = &secret{}
		f.secrets[id] = s
	}
	return s
}

func (f *Fake) note(e spec.AuditEntry, by spec.Actor) {
	last := spec.AuditEntry{}
	if len(f.entries) > 0 {
		last = f.entries[len(f.entries)-1]
	}
	e.At, e.UID, e.User = f.Now, by.UID, by.User
	f.entries = append(f.entries, e.After(last))
}

// known finds a secret with a value; mu is held.
func (f *Fake) known(id spec.SecretID) (*secret, error) {
	if s := f.secrets[id]; s != nil && len(s.values) > 0 {
		return s, nil
	}
	return nil, fmt.Errorf("secret %s: %w", id, spec.ErrNotFound)
}

func (f *Fake) open() error {
	if f.lock.why != "" {
		return errors.Join(errors.New(f.lock.why), spec.ErrUnavailable)
	}
	return nil
}

// Secrets implements api.Backend.
func (f *Fake) Secrets(_ context.Context, project string) ([]spec.SecretStatus, spec.KeyStatus, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []spec.SecretStatus
	for _, id := range slices.SortedFunc(maps.Keys(f.secrets), func(a, b spec.SecretID) int { return cmp.Compare(a.String(), b.String()) }) {
		if len(f.secrets[id].values) > 0 && (project == "" || id.Project == project) {
			out = append(out, f.secretStatus(id))
		}
	}
	return out, f.keyStatus(), nil
}

func (f *Fake) keyStatus() spec.KeyStatus {
	k := spec.KeyStatus{Source: f.lock.source, Locked: f.lock.why, Next: f.lock.next, Lost: f.lock.lost}
	k.Passphrase = k.Locked != "" && k.Source == "passphrase"
	k.Unset = k.Passphrase && len(f.lock.passphrase) == 0
	return k
}

func (f *Fake) secretStatus(id spec.SecretID) spec.SecretStatus {
	s := f.secrets[id]
	st := spec.SecretStatus{SecretID: id, Version: s.current, Created: f.Now.AddDate(0, 0, -3), UsedBy: s.users, Behind: s.behind}
	for n := max(1, len(s.values)-spec.KeptVersions+1); n <= len(s.values); n++ {
		st.Versions = append(st.Versions, n)
	}
	return st
}

// SetSecrets implements api.Backend.
func (f *Fake) SetSecrets(_ context.Context, r spec.SecretRequest) ([]spec.SecretChange, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := cmp.Or(f.refused(), f.open()); err != nil {
		return nil, err
	}
	var out []spec.SecretChange
	for _, name := range slices.Sorted(maps.Keys(r.Values)) {
		id := spec.SecretID{Project: r.Project, Name: name}
		s, value := f.secret(id), bytes.Clone(r.Values[name].Reveal())
		unchanged := s.current > 0 && bytes.Equal(s.values[s.current-1], value)
		f.calls = append(f.calls, fmt.Sprintf("set %s unchanged=%t", id, unchanged))
		if !unchanged {
			s.values = append(s.values, value)
			s.current = len(s.values)
			f.note(spec.AuditEntry{Kind: spec.AuditSet, Secret: id.String(), Version: s.current}, r.By)
		}
		out = append(out, spec.SecretChange{SecretStatus: f.secretStatus(id), Unchanged: unchanged})
	}
	f.bring(out)
	for i := range out {
		f.secrets[out[i].SecretID].behind, out[i].Behind = nil, nil
	}
	return out, nil
}

// bring starts an operation on each project that uses what has changed, and puts
// it to the first of its secrets.
func (f *Fake) bring(changes []spec.SecretChange) {
	begun := map[string]bool{}
	for i, c := range changes {
		for _, u := range c.UsedBy {
			name, _, _ := strings.Cut(u, "/")
			if begun[name] || c.Unchanged && len(c.Behind) == 0 || f.projects[name] == nil {
				continue
			}
			begun[name] = true
			p := clone(f.current(name).Project)
			var moves []spec.ServicePreview
			for j := range p.Services {
				if slices.Contains(c.UsedBy, name+"/"+p.Services[j].Name) {
					p.Services[j].Container.Epoch++
					moves = append(moves, spec.ServicePreview{Name: p.Services[j].Name, Change: spec.ChangeReplace})
				}
			}
			changes[i].Operations = append(changes[i].Operations, f.roll("secret", fmt.Sprintf("secret %s version %d", c.SecretID, c.Version), p, moves))
		}
	}
}

// RollbackSecret implements api.Backend.
func (f *Fake) RollbackSecret(_ context.Context, id spec.SecretID, version int, by spec.Actor) (spec.SecretChange, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, err := f.known(id)
	if err != nil {
		return spec.SecretChange{}, err
	}
	if version == 0 {
		version = s.current - 1
	}
	if version < 1 || version > len(s.values) {
		return spec.SecretChange{}, fmt.Errorf("secret %s has no version %d: %w", id, version, spec.ErrRefused)
	}
	s.current = version
	f.calls = append(f.calls, "rollback "+id.String())
	f.note(spec.AuditEntry{Kind: spec.AuditRollback, Secret: id.String(), Version: s.current}, by)
	out := []spec.SecretChange{{SecretStatus: f.secretStatus(id)}}
	f.bring(out)
	return out[0], nil
}

// RemoveSecret implements api.Backend.
func (f *Fake) RemoveSecret(_ context.Context, id spec.SecretID, by spec.Actor) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, err := f.known(id)
	if err != nil {
		return err
	}
	if len(s.users) > 0 {
		return fmt.Errorf("secret %s is used by %s: %w", id, strings.Join(s.users, ", "), spec.ErrRefused)
	}
	delete(f.secrets, id)
	f.calls = append(f.calls, "remove "+id.String())
	f.note(spec.AuditEntry{Kind: spec.AuditRemove, Secret: id.String()}, by)
	return nil
}

// CompareSecret implements api.Backend.
func (f *Fake) CompareSecret(_ context.Context, id spec.SecretID, value spec.SecretValue, by spec.Actor) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, err := f.known(id)
	if err = cmp.Or(err, f.open()); err != nil {
		return false, err
	}
	f.note(spec.AuditEntry{Kind: spec.AuditCompare, Secret: id.String(), Version: s.current}, by)
	return bytes.Equal(s.values[s.current-1], value.Reveal()), nil
}

// Unlock implements api.Backend.
func (f *Fake) Unlock(_ context.Context, passphrase spec.SecretValue, by spec.Actor) (spec.KeyStatus, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.lock.source != "passphrase": // the key is there again
	case len(f.lock.passphrase) == 0:
		f.lock.passphrase = bytes.Clone(passphrase.Reveal())
	case !bytes.Equal(f.lock.passphrase, passphrase.Reveal()):
		return f.keyStatus(), fmt.Errorf("this isn't the passphrase: %w", spec.ErrRefused)
	}
	f.lock.why, f.problems = "", nil
	f.calls = append(f.calls, "unlock")
	f.note(spec.AuditEntry{Kind: spec.AuditUnlock}, by)
	return f.keyStatus(), nil
}

// RotateKey implements api.Backend.
func (f *Fake) RotateKey(_ context.Context, passphrase spec.SecretValue, full bool, by spec.Actor) (spec.KeyStatus, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.open(); err != nil {
		return f.keyStatus(), err
	}
	if f.lock.next != "" {
		f.lock.source, f.lock.next = f.lock.next, ""
	}
	f.lock.lost = ""
	if f.lock.source == "passphrase" {
		f.lock.passphrase = bytes.Clone(passphrase.Reveal())
	}
	f.calls = append(f.calls, fmt.Sprintf("rotate-key full=%t", full))
	f.note(spec.AuditEntry{Kind: spec.AuditRotate, Detail: fmt.Sprintf("full=%t", full)}, by)
	return f.keyStatus(), nil
}

// ResetKey implements api.Backend.
func (f *Fake) ResetKey(_ context.Context, passphrase spec.SecretValue, by spec.Actor) (spec.KeyStatus, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.refused(); err != nil {
		return f.keyStatus(), err
	}
	if f.lock.why == "" {
		return f.keyStatus(), fmt.Errorf("the secrets aren't locked, so none is given up: %w", spec.ErrRefused)
	}
	if f.lock.source == "passphrase" {
		f.lock.passphrase = bytes.Clone(passphrase.Reveal())
	}
	f.lock.why, f.problems = "", nil
	clear(f.secrets)
	f.calls = append(f.calls, "reset-key")
	f.note(spec.AuditEntry{Kind: spec.AuditReset}, by)
	return f.keyStatus(), nil
}

// SecretAudit implements api.Backend.
func (f *Fake) SecretAudit(_ context.Context, seq uint64, send func(spec.AuditEntry) error) error {
	f.mu.Lock()
	entries := slices.Clone(f.entries)
	f.mu.Unlock()
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

// RefusedSecret implements api.Backend.
func (f *Fake) RefusedSecret(_ context.Context, kind spec.AuditKind, secret, why string, by spec.Actor) {
	f.locked(func() { f.note(spec.AuditEntry{Kind: kind, Secret: secret, Refused: why}, by) })
}

// bringValues keeps the values of a deploy as its project's, and names them.
func (f *Fake) bringValues(r spec.DeployRequest) (names string) {
	for _, name := range slices.Sorted(maps.Keys(r.Secrets)) {
		s := f.secret(spec.SecretID{Project: r.Project.Name, Name: name})
		s.values = append(s.values, bytes.Clone(r.Secrets[name].Reveal()))
		s.current = len(s.values)
		names += " secret=" + name
	}
	return names
}
