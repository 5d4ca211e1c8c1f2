package orchestrator

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"dunnage/spec"
)

// newNonce is 8 random bytes in hex.
func newNonce() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// openVault opens the store's keys, if their source lets it, and makes them for
// a store that has none. Without keys the agent runs as well: secrets are locked.
func (l *Loop) openVault() error {
	key, err := l.cfg.Vault.Load(l.state.key)
	if err != nil {
		return err
	}
	if key != nil {
		if err := l.state.save(spec.Commit{Key: key}); err != nil {
			return fmt.Errorf("keep the key of secrets: %w", err)
		}
	}
	if locked := l.cfg.Vault.Status().Locked; locked != "" {
		l.cfg.Log.Warn("secrets are locked", "cause", locked)
	}
	return l.compact()
}

// compact finishes a change of keys: what the earlier ones sealed leaves the file.
func (l *Loop) compact() error {
	if l.state.key == nil || !l.state.key.Compact {
		return nil
	}
	if err := l.cfg.Store.Compact(); err != nil {
		return fmt.Errorf("write the store anew, without what earlier keys sealed: %w", err)
	}
	key := *l.state.key
	key.Compact = false
	l.state.key = &key
	return nil
}

// saveAudited saves c together with the entries, which it dates and chains.
func (l *Loop) saveAudited(c spec.Commit, entries ...spec.AuditEntry) error {
	if len(entries) == 0 {
		return l.state.save(c)
	}
	l.auditing.Lock()
	defer l.auditing.Unlock()
	last := l.state.lastAudited()
	for _, e := range entries {
		e.At, e.Seq, e.Prev = l.cfg.Clock.Now().UTC(), last.Seq+1, last.Hash
		e.Hash = e.Sum()
		c.Audit = append(c.Audit, e)
		last = e
	}
	return l.state.save(c)
}

// refuse notes an attempt that came to nothing, and returns its error.
func (l *Loop) refuse(e spec.AuditEntry, err error) error {
	e.Refused = plain(err)
	if saved := l.saveAudited(spec.Commit{}, e); saved != nil {
		l.cfg.Log.Error("audit a refused attempt", "kind", e.Kind, "secret", e.Secret, "error", saved)
	}
	return err
}

// RefusedSecret notes an attempt that the server refused for want of rights.
func (l *Loop) RefusedSecret(_ context.Context, kind spec.AuditKind, secret, why string, by spec.Actor) {
	_ = l.refuse(spec.AuditEntry{Kind: kind, Secret: secret, UID: by.UID, User: by.User}, fmt.Errorf("%s", why))
}

// Secrets lists the secrets of a project, or all, and says whether they can be opened.
func (l *Loop) Secrets(_ context.Context, project string) ([]spec.SecretStatus, spec.KeyStatus, error) {
	var out []spec.SecretStatus
	for _, id := range l.state.secretIDs() {
		if project == "" || id.Project == project {
			out = append(out, l.secretStatus(id))
		}
	}
	return out, l.cfg.Vault.Status(), nil
}

func (l *Loop) secretStatus(id spec.SecretID) spec.SecretStatus {
	rec, _ := l.state.secret(id)
	now, _ := l.state.version(id, 0)
	s := spec.SecretStatus{SecretID: id, Origin: rec.Origin, Version: rec.Current, Created: now.Created, UsedBy: l.secretUsers(id)}
	for _, v := range l.state.secretVersions(id) {
		s.Versions = append(s.Versions, v.Version)
	}
	return s
}

// secretUsers lists the services, "project/service", that a desired or good
// release gives the secret.
func (l *Loop) secretUsers(id spec.SecretID) []string {
	var out []string
	for _, name := range l.state.projectNames() {
		rec, _ := l.state.project(name)
		if rec.Down {
			continue
		}
		for _, n := range []int{rec.Desired, rec.Good} {
			r, ok := l.state.release(name, n)
			if !ok {
				continue
			}
			for _, s := range r.Project.Services {
				if slices.ContainsFunc(r.Pins(s), func(p spec.SecretPin) bool { return p.SecretID == id }) {
					out = append(out, name+"/"+s.Name)
				}
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// SetSecrets makes the values the current versions, all or none, and begins to
// bring them to the projects that use them.
func (l *Loop) SetSecrets(ctx context.Context, r spec.SecretRequest) ([]spec.SecretChange, error) {
	names := slices.Sorted(maps.Keys(r.Values))
	entry := func(id spec.SecretID) spec.AuditEntry {
		return spec.AuditEntry{Kind: spec.AuditSet, Secret: id.String(), UID: r.By.UID, User: r.By.User}
	}
	var (
		c       spec.Commit
		audit   []spec.AuditEntry
		changes []spec.SecretChange
	)
	err := l.withVault(func() error {
		for _, name := range names {
			id := spec.SecretID{Project: r.Project, Name: name}
			v, unchanged, err := l.set(&c, id, r.Values[name], r.Keep)
			if err != nil {
				return l.refuse(entry(id), err)
			}
			changes = append(changes, spec.SecretChange{SecretStatus: spec.SecretStatus{SecretID: id}, Unchanged: unchanged})
			if !unchanged {
				e := entry(id)
				e.Version = v.Version
				audit = append(audit, e)
			}
		}
		audit = append(audit, l.expire(&c)...)
		return l.saveAudited(c, audit...)
	})
	if err != nil {
		return nil, err
	}
	return l.spread(ctx, changes)
}

func (l *Loop) set(c *spec.Commit, id spec.SecretID, value spec.SecretValue, keep int) (v spec.SecretVersion, unchanged bool, err error) {
	rec, ok := l.state.secret(id)
	switch {
	case !ok:
		rec = spec.SecretRecord{SecretID: id, Next: 1}
	case rec.Origin == spec.OriginManifest && len(l.secretUsers(id)) > 0:
		return v, false, fmt.Errorf("secret %s: its value comes with the manifest of project %s: change it there and deploy, or declare it as external: %w", id, id.Project, spec.ErrRefused)
	}
	if keep < 0 || keep > spec.MaxKeep {
		return v, false, fmt.Errorf("secret %s: keep %d versions: 1 to %d can be kept: %w", id, keep, spec.MaxKeep, spec.ErrRefused)
	}
	v, unchanged, err = l.sealNext(&rec, value)
	if err != nil {
		return v, false, err
	}
	rec.Origin, rec.Keep = spec.OriginSet, cmp.Or(keep, rec.Keep)
	c.Secrets = append(c.Secrets, rec)
	if !unchanged {
		c.Versions = append(c.Versions, v)
	}
	return v, unchanged, nil
}

// withVault runs f while nothing else changes secrets or keys.
func (l *Loop) withVault(f func() error) error {
	if err := l.mayChange(); err != nil {
		return err
	}
	l.vault.Lock()
	defer l.vault.Unlock()
	return f()
}

// expire drops the versions that are beyond the kept ones and that nothing uses,
// and says so in the audit. c may bring new versions and records.
func (l *Loop) expire(c *spec.Commit) []spec.AuditEntry {
	var audit []spec.AuditEntry
	used := l.state.pinned()
	for _, rec := range c.Secrets {
		versions := l.state.secretVersions(rec.SecretID)
		for _, v := range c.Versions {
			if v.SecretID == rec.SecretID {
				versions = append(versions, v)
			}
		}
		var before int // what a rollback takes
		for _, v := range versions {
			if v.Version == rec.Current {
				before = v.Before
			}
		}
		for _, old := range versions[:max(0, len(versions)-cmp.Or(rec.Keep, spec.KeptVersions))] {
			if used[old.Pin()] || old.Version == rec.Current || old.Version == before {
				continue
			}
			c.DropVersions = append(c.DropVersions, old.Pin())
			audit = append(audit, spec.AuditEntry{Kind: spec.AuditExpire, Secret: rec.SecretID.String(), Version: old.Version})
		}
	}
	return audit
}

// spread brings current versions to who uses them and completes the answer.
func (l *Loop) spread(ctx context.Context, changes []spec.SecretChange) ([]spec.SecretChange, error) {
	tell := func() (used bool) {
		for i := range changes {
			id := changes[i].SecretID
			changes[i].SecretStatus = l.secretStatus(id)
			used = used || len(changes[i].UsedBy) > 0 || len(l.behind(id)) > 0 // one that was absent so far has no users yet
		}
		return used
	}
	if !tell() {
		return changes, nil
	}
	var begun []spec.Operation
	err := l.do(ctx, func() error {
		begun = l.renew()
		return nil
	})
	if err != nil {
		return changes, err
	}
	l.Look()
	tell()
	for i, c := range changes {
		for _, project := range l.behind(c.SecretID) {
			changes[i].Later = append(changes[i].Later, project)
		}
		for _, op := range begun {
			if slices.ContainsFunc(c.UsedBy, func(u string) bool { return projectOf(u) == op.Project }) {
				changes[i].Operations = append(changes[i].Operations, op)
			}
		}
	}
	return changes, nil
}

// projectOf is the project in "project/service".
func projectOf(user string) string {
	for i := range user {
		if user[i] == '/' {
			return user[:i]
		}
	}
	return user
}

// behind lists the projects that have yet to get the secret's current version.
func (l *Loop) behind(id spec.SecretID) []string {
	var out []string
	for _, name := range l.state.projectNames() {
		rec, _ := l.state.project(name)
		prev := l.present(name)
		if prev == nil {
			continue
		}
		for key, p := range l.state.currentPins(prev.Project) {
			if p.SecretID == id && rec.Secrets[key] != p {
				out = append(out, name)
			}
		}
	}
	return slices.Compact(out)
}

// RollbackSecret makes the version that was current before the present one
// current again, and brings it to who uses it.
func (l *Loop) RollbackSecret(ctx context.Context, id spec.SecretID, by spec.Actor) (spec.SecretChange, error) {
	entry := spec.AuditEntry{Kind: spec.AuditRollback, Secret: id.String(), UID: by.UID, User: by.User}
	err := l.withVault(func() error {
		rec, ok := l.state.secret(id)
		if !ok {
			return l.refuse(entry, l.noSecret(id))
		}
		if rec.Origin == spec.OriginManifest {
			return l.refuse(entry, fmt.Errorf("secret %s: its value comes with the manifest of project %s: `dunnage rollback -p %s` brings an earlier one back: %w", id, id.Project, id.Project, spec.ErrRefused))
		}
		now, _ := l.state.version(id, 0)
		before, ok := l.state.version(id, now.Before)
		if now.Before == 0 || !ok {
			return l.refuse(entry, fmt.Errorf("secret %s: no version before %d is kept: %w", id, rec.Current, spec.ErrRefused))
		}
		rec.Current, entry.Version = before.Version, before.Version
		return l.saveAudited(spec.Commit{Secrets: []spec.SecretRecord{rec}}, entry)
	})
	if err != nil {
		return spec.SecretChange{}, err
	}
	changes, err := l.spread(ctx, []spec.SecretChange{{SecretStatus: spec.SecretStatus{SecretID: id}}})
	return changes[0], err
}

// noSecret says that there is no such secret, and what is like it.
func (l *Loop) noSecret(id spec.SecretID) error {
	var names []string
	for _, other := range l.state.secretIDs() {
		names = append(names, other.String())
	}
	next := "`dunnage secret ls` lists them"
	if near := spec.Nearest(id.String(), names); near != "" {
		next = "did you mean " + near + "?"
	}
	return fmt.Errorf("secret %s: %w; %s", id, spec.ErrNotFound, next)
}

// RemoveSecret removes a secret that nothing uses, with all its versions.
func (l *Loop) RemoveSecret(_ context.Context, id spec.SecretID, by spec.Actor) error {
	entry := spec.AuditEntry{Kind: spec.AuditRemove, Secret: id.String(), UID: by.UID, User: by.User}
	return l.withVault(func() error {
		if _, ok := l.state.secret(id); !ok {
			return l.refuse(entry, l.noSecret(id))
		}
		if users := l.secretUsers(id); len(users) > 0 {
			return l.refuse(entry, &usedSecret{id, users})
		}
		c := spec.Commit{DropSecrets: []spec.SecretID{id}}
		for _, v := range l.state.secretVersions(id) {
			c.DropVersions = append(c.DropVersions, v.Pin())
		}
		return l.saveAudited(c, entry)
	})
}

// CompareSecret reports whether the secret's current version has the value.
func (l *Loop) CompareSecret(_ context.Context, id spec.SecretID, value spec.SecretValue, by spec.Actor) (bool, error) {
	entry := spec.AuditEntry{Kind: spec.AuditCompare, Secret: id.String(), UID: by.UID, User: by.User}
	l.vault.RLock()
	defer l.vault.RUnlock()
	v, ok := l.state.version(id, 0)
	if !ok {
		return false, l.refuse(entry, l.noSecret(id))
	}
	entry.Version = v.Version
	if err := l.saveAudited(spec.Commit{}, entry); err != nil {
		return false, err
	}
	return l.hasValue(v, value)
}

// Unlock opens the secrets with a passphrase, or sets the first one.
func (l *Loop) Unlock(_ context.Context, passphrase spec.SecretValue, by spec.Actor) (spec.KeyStatus, error) {
	entry := spec.AuditEntry{Kind: spec.AuditUnlock, UID: by.UID, User: by.User}
	err := l.withVault(func() error {
		key, err := l.cfg.Vault.Unlock(passphrase)
		if err != nil {
			return l.refuse(entry, err)
		}
		if err := l.saveAudited(spec.Commit{Key: key}, entry); err != nil {
			return errors.Join(err, l.asSaved())
		}
		return l.compact()
	})
	if err != nil {
		return l.cfg.Vault.Status(), err
	}
	for _, name := range l.state.projectNames() { // what failed for want of secrets needn't wait longer
		if err := l.do(l.ctx, func() error { return l.pardon(name) }); err != nil {
			return l.cfg.Vault.Status(), err
		}
	}
	l.Look()
	return l.cfg.Vault.Status(), nil
}

// RotateKey seals the data key by a new outer key; full: and everything by a
// new data key, after which the file has nothing that the earlier one sealed.
func (l *Loop) RotateKey(_ context.Context, passphrase spec.SecretValue, full bool, by spec.Actor) (spec.KeyStatus, error) {
	entry := spec.AuditEntry{Kind: spec.AuditRotate, UID: by.UID, User: by.User}
	if full {
		entry.Detail = "full"
	}
	err := l.withVault(func() error {
		rotation, err := l.cfg.Vault.Rotate(passphrase, full)
		if err != nil {
			return l.refuse(entry, err)
		}
		c := spec.Commit{Key: &rotation.Key}
		if err := l.reseal(&c, rotation); err != nil {
			return l.refuse(entry, errors.Join(err, rotation.Abandon()))
		}
		if err := l.saveAudited(c, entry); err != nil {
			return errors.Join(err, rotation.Abandon(), l.asSaved())
		}
		if err := rotation.Finish(); err != nil {
			return err
		}
		return l.compact()
	})
	return l.cfg.Vault.Status(), err
}

// asSaved opens the vault anew by what the store has, after it said that it
// couldn't save keys: those that aren't there must seal nothing, and a store
// that fails late may have saved them all the same.
func (l *Loop) asSaved() error {
	st, err := l.cfg.Store.Load()
	if err != nil {
		return err
	}
	l.state.key = st.Key
	_, err = l.cfg.Vault.Load(st.Key)
	return err
}

func (l *Loop) reseal(c *spec.Commit, r spec.KeyRotation) error {
	if r.Reseal == nil {
		return nil
	}
	for _, id := range l.state.secretIDs() {
		for _, v := range l.state.secretVersions(id) {
			sealed, err := l.cfg.Store.Sealed(v.Pin())
			if err != nil {
				return err
			}
			if sealed.Sealed, err = r.Reseal(sealed); err != nil {
				return err
			}
			c.Versions = append(c.Versions, sealed)
		}
	}
	return nil
}

// SecretAudit sends the audit's entries from seq on.
func (l *Loop) SecretAudit(ctx context.Context, seq uint64, send func(spec.AuditEntry) error) error {
	return l.cfg.Store.Audit(seq, func(e spec.AuditEntry) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return send(e)
	})
}

// usedSecret is a secret that isn't removed because services use it.
type usedSecret struct {
	id    spec.SecretID
	users []string // "project/service"
}

func (e *usedSecret) Error() string {
	return fmt.Sprintf("remove secret %s: used by %s", e.id, strings.Join(e.users, ", "))
}

func (e *usedSecret) Unwrap() error { return spec.ErrRefused }

// Hint says how the secret becomes free.
func (e *usedSecret) Hint() string {
	return "take it out of their manifests and deploy, or `dunnage down` the projects"
}
