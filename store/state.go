package store

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"unicode/utf8"

	"go.etcd.io/bbolt"

	"dunnage/internal/fault"
	"dunnage/spec"
)

// Load reads everything. Lists come sorted by key, as spec.State says.
func (s *Store) Load() (spec.State, error) {
	st := spec.State{Releases: map[string][]spec.Release{}}
	err := s.view(func(tx *bbolt.Tx) error {
		err := loadSecrets(tx, &st)
		if err != nil {
			return err
		}
		if st.Projects, err = list[spec.ProjectRecord](tx.Bucket([]byte("projects"))); err != nil {
			return fmt.Errorf("projects: %w", err)
		}
		if st.Replicas, err = list[spec.ReplicaRecord](tx.Bucket([]byte("replicas"))); err != nil {
			return fmt.Errorf("replicas: %w", err)
		}
		if st.Quarantine, err = list[spec.QuarantinedAddress](tx.Bucket([]byte("quarantine"))); err != nil {
			return fmt.Errorf("quarantine: %w", err)
		}
		if st.Receipts, err = unsettled(tx.Bucket([]byte("receipts"))); err != nil {
			return err
		}
		releases := tx.Bucket([]byte("releases"))
		return releases.ForEachBucket(func(project []byte) error {
			rs, err := list[spec.Release](releases.Bucket(project))
			if err != nil {
				return fmt.Errorf("releases of %s: %w", project, err)
			}
			st.Releases[string(project)] = rs
			return nil
		})
	})
	if err != nil {
		return spec.State{}, fmt.Errorf("load store %s: %w; %s", s.path, err, restore)
	}
	return st, nil
}

func (s *Store) view(read func(tx *bbolt.Tx) error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.db.View(read)
}

func list[T any](b *bbolt.Bucket) ([]T, error) {
	var out []T
	err := b.ForEach(func(k, v []byte) error {
		x, err := decode[T](k, v)
		out = append(out, x)
		return err
	})
	return out, err
}

func decode[T any](k, v []byte) (T, error) {
	var x T
	if !utf8.Valid(v) { // encoding/json reads it nevertheless
		return x, fmt.Errorf("%q isn't text", k)
	}
	if err := json.Unmarshal(v, &x); err != nil {
		return x, fmt.Errorf("%q: %w", k, err)
	}
	return x, nil
}

// Commit makes all of c durable in one transaction, or nothing of it.
func (s *Store) Commit(c spec.Commit) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	write := func(tx *bbolt.Tx) error {
		w := writer{tx: tx}
		for _, name := range c.DropProjects {
			w.dropProject(name)
		}
		for _, p := range c.Projects {
			w.put("projects", p.Name, p)
		}
		for _, r := range c.Releases {
			w.putRelease(r)
		}
		for _, r := range c.DropReleases {
			w.dropRelease(r)
		}
		for _, r := range c.Replicas {
			w.put("replicas", r.ID, r)
		}
		for _, id := range c.DropReplicas {
			w.drop("replicas", id)
		}
		for _, q := range c.Quarantine {
			w.put("quarantine", q.Addr.String(), q)
		}
		for _, a := range c.DropQuarantine {
			w.drop("quarantine", a.String())
		}
		w.secrets(c)
		w.receipts(c.Receipts)
		return w.err
	}
	if err := fault.Do("store commit", func() error { return s.update(write) }); err != nil {
		return fmt.Errorf("write store: %w", err)
	}
	return nil
}

// writer keeps the first error of a transaction.
type writer struct {
	tx  *bbolt.Tx
	err error
}

func (w *writer) put(bucket, key string, v any) {
	if w.err != nil {
		return
	}
	var b []byte
	if b, w.err = json.Marshal(v); w.err == nil {
		w.err = w.tx.Bucket([]byte(bucket)).Put([]byte(key), b)
	}
}

func (w *writer) drop(bucket, key string) {
	if w.err == nil {
		w.err = w.tx.Bucket([]byte(bucket)).Delete([]byte(key))
	}
}

// dropProject drops the record, the releases and the receipts.
func (w *writer) dropProject(name string) {
	w.drop("projects", name)
	for _, bucket := range []string{"releases", "receipts"} {
		if b := w.tx.Bucket([]byte(bucket)); w.err == nil && b.Bucket([]byte(name)) != nil {
			w.err = b.DeleteBucket([]byte(name))
		}
	}
}

func (w *writer) putRelease(r spec.ReleaseRecord) {
	if w.err != nil {
		return
	}
	var b *bbolt.Bucket
	if b, w.err = w.tx.Bucket([]byte("releases")).CreateBucketIfNotExists([]byte(r.Project)); w.err != nil {
		return
	}
	var v []byte
	if v, w.err = json.Marshal(r.Release); w.err == nil {
		w.err = b.Put(releaseKey(r.Release.Number), v)
	}
}

func (w *writer) dropRelease(r spec.ReleaseRecord) {
	if w.err != nil {
		return
	}
	if b := w.tx.Bucket([]byte("releases")).Bucket([]byte(r.Project)); b != nil {
		w.err = b.Delete(releaseKey(r.Release.Number))
	}
}

// releaseKey sorts releases by number.
func releaseKey(n int) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }
