package store

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"go.etcd.io/bbolt"

	"dunnage/spec"
)

var dataKey = []byte("data")

// secretKey sorts secrets by project, then name.
func secretKey(id spec.SecretID) []byte { return []byte(id.Project + "\x00" + id.Name) }

// versionKey sorts the versions of a secret by number.
func versionKey(id spec.SecretID, n int) []byte {
	return binary.BigEndian.AppendUint64(append(secretKey(id), 0), uint64(n))
}

// unsealed reads a version without what is sealed, which may be long.
type unsealed struct {
	spec.SecretVersion
	Sealed present `json:"sealed"`
}

// present says whether there is a text that isn't empty.
type present bool

func (p *present) UnmarshalJSON(b []byte) error {
	*p = len(b) > len(`""`) && b[0] == '"'
	return nil
}

// loadSecrets reads what a state has of secrets. Of the audit record it reads
// the last entry: Audit checks the others.
func loadSecrets(tx *bbolt.Tx, st *spec.State) error {
	err := tx.Bucket([]byte("secrets")).ForEach(func(k, v []byte) error {
		r, err := decode[spec.SecretRecord](k, v)
		if err == nil && !bytes.Equal(k, secretKey(r.SecretID)) {
			err = fmt.Errorf("%q is the record of %s", k, r.SecretID)
		}
		st.Secrets = append(st.Secrets, r)
		return err
	})
	if err != nil {
		return fmt.Errorf("secrets: %w", err)
	}
	err = tx.Bucket([]byte("versions")).ForEach(func(k, v []byte) error {
		r, err := decode[unsealed](k, v)
		if err == nil {
			err = checkVersion(k, r.SecretVersion, bool(r.Sealed))
		}
		st.Versions = append(st.Versions, r.SecretVersion)
		return err
	})
	if err != nil {
		return fmt.Errorf("versions of secrets: %w", err)
	}
	if st.Key, err = loadKey(tx.Bucket([]byte("keys"))); err != nil {
		return fmt.Errorf("key of secrets: %w", err)
	}
	if k, v := tx.Bucket([]byte("audit")).Cursor().Last(); k != nil {
		st.Audited, err = decodeAudit(k, v)
	}
	return err
}

func checkVersion(k []byte, v spec.SecretVersion, sealed bool) error {
	if !bytes.Equal(k, versionKey(v.SecretID, v.Version)) {
		return fmt.Errorf("%q is version %d of %s", k, v.Version, v.SecretID)
	}
	if !sealed {
		return fmt.Errorf("version %d of %s has nothing sealed", v.Version, v.SecretID)
	}
	return nil
}

// Sealed reads the version that p names, with what is sealed, or wraps
// spec.ErrNotFound.
func (s *Store) Sealed(p spec.SecretPin) (spec.SecretVersion, error) {
	var found spec.SecretVersion
	err := s.view(func(tx *bbolt.Tx) error {
		k := versionKey(p.SecretID, p.Version)
		v := tx.Bucket([]byte("versions")).Get(k)
		if v == nil {
			return nil
		}
		var err error
		if found, err = decode[spec.SecretVersion](k, v); err != nil {
			return err
		}
		return checkVersion(k, found, len(found.Sealed) > 0)
	})
	switch {
	case err != nil:
		return spec.SecretVersion{}, fmt.Errorf("read store %s: versions of secrets: %w; %s", s.path, err, restore)
	case found.Version == 0:
		return spec.SecretVersion{}, fmt.Errorf("version %d of secret %s: %w", p.Version, p.SecretID, spec.ErrNotFound)
	case found.Pin() != p:
		return spec.SecretVersion{}, fmt.Errorf("version %d of secret %s, made before the store was brought back from a backup: %w", p.Version, p.SecretID, spec.ErrNotFound)
	}
	return found, nil
}

// secrets writes what c has of secrets.
func (w *writer) secrets(c spec.Commit) {
	for _, r := range c.Secrets {
		w.put("secrets", string(secretKey(r.SecretID)), r)
	}
	for _, id := range c.DropSecrets {
		w.drop("secrets", string(secretKey(id)))
	}
	for _, v := range c.Versions {
		if w.err == nil && len(v.Sealed) == 0 { // as Load gives it
			w.err = fmt.Errorf("version %d of secret %s has nothing sealed", v.Version, v.SecretID)
		}
		w.put("versions", string(versionKey(v.SecretID, v.Version)), v)
	}
	for _, p := range c.DropVersions {
		w.dropVersion(p)
	}
	if c.Key != nil {
		w.put("keys", string(dataKey), c.Key)
	}
	w.audit(c.Audit)
}

// dropVersion leaves another version of the same number alone.
func (w *writer) dropVersion(p spec.SecretPin) {
	if w.err != nil {
		return
	}
	k := versionKey(p.SecretID, p.Version)
	v := w.tx.Bucket([]byte("versions")).Get(k)
	if v == nil {
		return
	}
	var found unsealed
	if found, w.err = decode[unsealed](k, v); w.err == nil && found.Pin() == p {
		w.drop("versions", string(k))
	}
}
