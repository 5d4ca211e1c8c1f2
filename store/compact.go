package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"

	"dunnage/internal/fault"
	"dunnage/spec"
)

// copyBatch is how many bytes a transaction of the copy has, about: bbolt
// keeps all of one in memory.
const copyBatch = 1 << 20

// Compact writes the file anew, with what it holds and nothing else: bbolt
// leaves what was dropped or replaced in free pages. The mark SecretKey.Compact
// isn't in the new file, so a crash leaves the old file with the mark or the
// new one without. Other calls wait meanwhile.
//
// The new file is locked before it takes the place of the old one, which is let
// go of last: no other agent gets hold of a store in between.
func (s *Store) Compact() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	db, err := copyOf(s.db, s.path)
	if err != nil {
		return fmt.Errorf("write store %s anew: %w", s.path, errors.Join(err, removeCopy(s.path)))
	}
	if err := fault.Do("store rename", func() error { return os.Rename(copyPath(s.path), s.path) }); err != nil {
		return fmt.Errorf("write store %s anew: %w", s.path, errors.Join(err, db.Close(), removeCopy(s.path)))
	}
	atStep("renamed")
	old := s.db
	s.db = db
	s.owned.Store(0)
	err = syncDir(filepath.Dir(s.path)) // if this fails, a power cut may bring the old file back, which has the mark
	atStep("durable")
	if err := errors.Join(err, old.Close()); err != nil {
		return fmt.Errorf("write store %s anew: %w", s.path, err)
	}
	return nil
}

// copyOf writes the copy of the store at path, on disk when it returns.
func copyOf(src *bbolt.DB, path string) (*bbolt.DB, error) {
	if err := removeCopy(path); err != nil { // of a compaction that failed
		return nil, err
	}
	db, _, err := openFile(copyPath(path), false)
	if err != nil {
		return nil, err
	}
	db.NoSync = true // nothing of it counts before all of it does
	atStep("created")
	err = bbolt.Compact(db, src, copyBatch)
	if err == nil {
		atStep("copied")
		err = db.Update(clearMark)
	}
	if err == nil {
		atStep("cleared")
		db.NoSync = false
		err = db.Sync()
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	atStep("synced")
	return db, nil
}

// clearMark leaves a free page with the mark behind, and the present key in it.
func clearMark(tx *bbolt.Tx) error {
	b := tx.Bucket([]byte("keys"))
	key, err := loadKey(b)
	if err != nil || key == nil || !key.Compact {
		return err
	}
	key.Compact = false
	v, err := json.Marshal(key)
	if err != nil {
		return err
	}
	return b.Put(dataKey, v)
}

// loadKey reads the only record of the bucket keys, nil if there is none.
func loadKey(b *bbolt.Bucket) (*spec.SecretKey, error) {
	v := b.Get(dataKey)
	if v == nil {
		return nil, nil
	}
	key, err := decode[spec.SecretKey](dataKey, v)
	return &key, err
}

// copyPath is where the copy of the store at path is made: in the same
// directory, for the rename.
func copyPath(path string) string { return path + ".compact" }

// removeCopy removes what a compaction left that was cut short. Only who has the
// lock of the store may.
func removeCopy(path string) error {
	if err := os.Remove(copyPath(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
