package orchestrator

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"

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

// withVault runs f while nothing else changes secrets or keys.
func (l *Loop) withVault(f func() error) error {
	if err := l.mayChange(); err != nil {
		return err
	}
	l.vault.Lock()
	defer l.vault.Unlock()
	if l.cfg.Vault.Status().Locked != "" {
		l.cfg.Vault.Look() // what is refused is told why now
	}
	return f()
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
	if err == nil {
		err = l.pardonAll()
	}
	return l.cfg.Vault.Status(), err
}

// pardonAll lets what failed for want of secrets wait no longer.
func (l *Loop) pardonAll() error {
	for _, name := range l.state.projectNames() {
		if err := l.do(l.ctx, func() error { return l.pardon(name) }); err != nil {
			return err
		}
	}
	l.Look()
	return nil
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

// ResetKey gives up all secrets of a store whose key is lost, and makes a first
// key as for a new one. Releases keep the versions that they had: what uses them
// waits until the secrets are set anew.
func (l *Loop) ResetKey(_ context.Context, passphrase spec.SecretValue, by spec.Actor) (spec.KeyStatus, error) {
	entry := spec.AuditEntry{Kind: spec.AuditReset, UID: by.UID, User: by.User}
	err := l.withVault(func() error {
		reset, err := l.cfg.Vault.Reset(passphrase)
		if err != nil {
			return l.refuse(entry, err)
		}
		c := spec.Commit{Key: &reset.Key, DropSecrets: l.state.secretIDs()}
		entry.Detail = fmt.Sprintf("%d secrets given up", len(c.DropSecrets))
		audit := []spec.AuditEntry{entry}
		for _, id := range c.DropSecrets {
			for _, v := range l.state.secretVersions(id) {
				c.DropVersions = append(c.DropVersions, v.Pin())
			}
			audit = append(audit, spec.AuditEntry{Kind: spec.AuditRemove, Secret: id.String(), UID: by.UID, User: by.User, Detail: "its key is lost"})
		}
		if err := l.saveAudited(c, audit...); err != nil {
			return errors.Join(err, reset.Abandon(), l.asSaved())
		}
		if err := reset.Finish(); err != nil {
			return err
		}
		return l.compact()
	})
	if err == nil {
		err = l.pardonAll()
	}
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
