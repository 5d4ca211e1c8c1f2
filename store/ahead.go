package store

import (
	"errors"
	"os"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// The file owns room ahead of what it has in it, so that commits go through where
// the disk is full: bbolt writes each in free pages or behind the last one, and
// makes the file longer without taking blocks for it.
const (
	ahead     = 1 << 20   // what is taken at once
	leastLeft = ahead / 2 // below it more is taken. A commit of the largest deploy takes a fifth of it
)

// reach makes the file own the room ahead. Where there is none to be had, commits
// take what is left of it.
func (s *Store) reach() {
	end, err := endOf(s.db)
	if err != nil || end+leastLeft <= s.owned.Load() {
		return
	}
	f, err := os.OpenFile(s.path, os.O_WRONLY, 0)
	if err != nil {
		return
	}
	defer f.Close()
	if unix.Fallocate(int(f.Fd()), 0, 0, end+ahead) == nil {
		s.owned.Store(end + ahead)
	}
}

// endOf is where the last page in use ends.
func endOf(db *bbolt.DB) (end int64, err error) {
	err = db.View(func(tx *bbolt.Tx) error {
		end = tx.Size()
		return nil
	})
	return end, err
}

// update is db.Update whose error means that nothing has changed. bbolt writes
// the page that makes a transaction count before it syncs that: if the sync
// fails, the change is there for whoever reads, and perhaps not on disk. An empty
// transaction after it syncs the same again.
func (s *Store) update(write func(*bbolt.Tx) error) error {
	id := 0
	err := s.db.Update(func(tx *bbolt.Tx) error {
		id = tx.ID()
		return write(tx)
	})
	if err == nil {
		s.reach()
		return nil
	}
	present := -1
	looked := s.db.View(func(tx *bbolt.Tx) error {
		present = tx.ID()
		return nil
	})
	if looked != nil || present < id {
		return err
	}
	if again := s.db.Update(func(*bbolt.Tx) error { return nil }); again != nil {
		return errors.Join(err, errUnsure)
	}
	return nil
}

// errUnsure is the one failure after which the file may have either state.
var errUnsure = errors.New("the disk hasn't confirmed what was written: start the agent anew when it does, `dunnage doctor` says whether it is full or failing")
