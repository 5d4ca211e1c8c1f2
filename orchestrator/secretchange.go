package orchestrator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"dunnage/spec"
)

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
		since   = l.ops.last()
	)
	err := l.withVault(func() error {
		for _, name := range names {
			id := spec.SecretID{Project: r.Project, Name: name}
			v, unchanged, err := l.set(&c, id, r.Values[name], r.Keep, r.By)
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
	if err == nil {
		err = l.bringAgain(ctx, changes)
	}
	if err != nil {
		return nil, err
	}
	return l.spread(ctx, since, changes, r.By)
}

func (l *Loop) set(c *spec.Commit, id spec.SecretID, value spec.SecretValue, keep int, by spec.Actor) (v spec.SecretVersion, unchanged bool, err error) {
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
	rec.Origin, rec.Keep, rec.By = spec.OriginSet, cmp.Or(keep, rec.Keep), by.Name()
	c.Secrets = append(c.Secrets, rec)
	if !unchanged {
		c.Versions = append(c.Versions, v)
	}
	return v, unchanged, nil
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

// spread brings current versions to who uses them and completes the answer: with
// the operations that began after the one numbered since, before the versions were
// saved. The loop may have seen them first, and begun. Where something else is at
// work on the project, an operation waits for its end.
func (l *Loop) spread(ctx context.Context, since int, changes []spec.SecretChange, by spec.Actor) ([]spec.SecretChange, error) {
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
	err := l.do(ctx, func() error {
		l.renew()
		for _, project := range l.projectsBehind(changes) {
			if l.ops.busy(project) && l.recordOf(project).Paused == "" {
				if _, err := l.ops.take(project, renewal, spec.Turn{Wait: true, Owner: by.Name()}, spec.OperationRolling); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return changes, err
	}
	l.Look()
	tell()
	for i, c := range changes {
		for _, op := range l.ops.since(since, renewal) {
			if slices.ContainsFunc(c.UsedBy, func(u string) bool { return strings.HasPrefix(u, op.Project+"/") }) {
				changes[i].Operations = append(changes[i].Operations, op)
			}
		}
		for _, project := range l.behind(c.SecretID) {
			if !slices.ContainsFunc(changes[i].Operations, func(op spec.Operation) bool { return op.Project == project }) {
				changes[i].Later = append(changes[i].Later, project)
			}
		}
	}
	return changes, nil
}

// projectsBehind lists the projects that have yet to get one of the current versions.
func (l *Loop) projectsBehind(changes []spec.SecretChange) []string {
	var out []string
	for _, c := range changes {
		out = append(out, l.behind(c.SecretID)...)
	}
	slices.Sort(out)
	return slices.Compact(out)
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

// RollbackSecret makes a kept version current again, by default the one that was
// before the present one, and brings it to who uses it.
func (l *Loop) RollbackSecret(ctx context.Context, id spec.SecretID, version int, by spec.Actor) (spec.SecretChange, error) {
	entry := spec.AuditEntry{Kind: spec.AuditRollback, Secret: id.String(), UID: by.UID, User: by.User}
	since := l.ops.last()
	err := l.withVault(func() error {
		rec, ok := l.state.secret(id)
		if !ok {
			return l.refuse(entry, l.noSecret(id))
		}
		if locked := l.cfg.Vault.Status().Locked; locked != "" { // nobody could be given it
			return l.refuse(entry, errors.Join(errors.New(locked), spec.ErrUnavailable))
		}
		if rec.Origin == spec.OriginManifest {
			return l.refuse(entry, fmt.Errorf("secret %s: its value comes with the manifest of project %s: `dunnage rollback -p %s` brings an earlier one back: %w", id, id.Project, id.Project, spec.ErrRefused))
		}
		to, err := l.rollbackTarget(rec, version)
		if err != nil {
			return l.refuse(entry, err)
		}
		rec.Current, rec.By, entry.Version = to, by.Name(), to
		return l.saveAudited(spec.Commit{Secrets: []spec.SecretRecord{rec}}, entry)
	})
	if err != nil {
		return spec.SecretChange{}, err
	}
	changes, err := l.spread(ctx, since, []spec.SecretChange{{SecretStatus: spec.SecretStatus{SecretID: id}}}, by)
	return changes[0], err
}

// rollbackTarget is the version that a rollback to the asked one takes; 0 asks
// for the one before the current one.
func (l *Loop) rollbackTarget(rec spec.SecretRecord, asked int) (int, error) {
	id, kept := rec.SecretID, l.state.secretVersions(rec.SecretID)
	to := asked
	if asked == 0 {
		now, _ := l.state.version(id, 0)
		to = now.Before
	}
	var others []string
	for _, v := range kept {
		if v.Version == to && to != rec.Current {
			return to, nil
		}
		if v.Version != rec.Current {
			others = append(others, fmt.Sprint(v.Version))
		}
	}
	next := "there is no other one"
	if len(others) > 0 {
		next = fmt.Sprintf("`dunnage secret rollback %s --to N` takes one of %s", id, strings.Join(others, ", "))
	}
	what := fmt.Sprintf("version %d isn't kept", to)
	switch asked {
	case 0:
		what = fmt.Sprintf("no version before %d is kept", rec.Current)
	case rec.Current:
		what = fmt.Sprintf("version %d is the current one", to)
	}
	return 0, fmt.Errorf("secret %s: %s; %s: %w", id, what, next, spec.ErrRefused)
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
