package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// version is the schema that this program reads and writes.
const version = "1"

// lockTimeout is how long Open waits for another process to let go of the
// file: an agent that is being restarted ends within it.
const lockTimeout = 3 * time.Second

var buckets = []string{"meta", "projects", "releases", "replicas", "quarantine"}

// restore is the next step for a file that can't be read.
const restore = "restore it from a backup: an agent that starts without it knows no project, " +
	"leaves what runs as it is and takes no change until that is removed"

// Store is an open file. Its methods are safe for concurrent use.
type Store struct{ db *bbolt.DB }

// Open opens the file at path, creating it and its directory (0700) if there
// is none. It fails if another agent has it open.
func Open(path string) (*Store, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("create state directory: %w", err)
	}
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		if err := create(path); err != nil {
			return nil, fmt.Errorf("create store %s: %w", path, err)
		}
	}
	err := checkWhole(path)
	var db *bbolt.DB
	if err == nil {
		db, err = openFile(path, lockTimeout)
	}
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("store %s is in use: another agent runs with this state directory; stop it or give this one its own --state-dir", path)
	}
	if errors.Is(err, syscall.EROFS) {
		return nil, fmt.Errorf("open store: %w; make the file system of the state directory writable again: see the kernel's log for why it isn't", err)
	}
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w; %s", path, err, restore)
	}
	s := &Store{db}
	if err := s.checkSchema(); err != nil {
		_ = db.Close() // the version is the error to report
		return nil, fmt.Errorf("open store %s: %w", path, err)
	}
	return s, nil
}

// Close waits for transactions and releases the file.
func (s *Store) Close() error { return s.db.Close() }

func openFile(path string, timeout time.Duration) (*bbolt.DB, error) {
	return bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout:        timeout,
		FreelistType:   bbolt.FreelistMapType,
		NoFreelistSync: true,
	})
}

// checkWhole refuses a file that ends before the pages that it counts, or with
// a damaged page: bbolt maps it into memory, and what it reads wrongly there
// would kill the process. A read-only bbolt reads nothing but the first two
// pages, and keeps other agents out meanwhile.
func checkWhole(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() == 0 { // bbolt would take it for a new one
		return errors.New("it is empty")
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: lockTimeout})
	if err != nil {
		return err
	}
	err = db.View(func(tx *bbolt.Tx) error {
		if tx.Size() > info.Size() {
			return fmt.Errorf("it is cut off: %d of %d bytes are there", info.Size(), tx.Size())
		}
		return checkPages(tx, f)
	})
	return errors.Join(err, db.Close())
}

// create makes an initialised file under a temporary name and moves it into
// place. Two agents that start at once both succeed: the later rename can't
// replace the earlier file, since link fails where a file exists.
func create(path string) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".store-*")
	if err != nil {
		return err
	}
	tmp := f.Name()
	defer os.Remove(tmp)
	if err := errors.Join(f.Close(), initialise(tmp)); err != nil {
		return err
	}
	if err := os.Link(tmp, path); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return syncDir(dir)
}

func initialise(path string) error {
	db, err := openFile(path, lockTimeout)
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range buckets {
			if _, err := tx.CreateBucket([]byte(name)); err != nil {
				return err
			}
		}
		return tx.Bucket([]byte("meta")).Put([]byte("version"), []byte(version))
	})
	return errors.Join(err, db.Close())
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (s *Store) checkSchema() error {
	return s.db.View(func(tx *bbolt.Tx) error {
		meta := tx.Bucket([]byte("meta"))
		if meta == nil {
			return errors.New("this is not a dunnage store")
		}
		if got := string(meta.Get([]byte("version"))); got != version {
			return fmt.Errorf("its schema is version %q and this program knows %q; use the program that wrote it", got, version)
		}
		for _, name := range buckets {
			if tx.Bucket([]byte(name)) == nil {
				return fmt.Errorf("it has no %s; %s", name, restore)
			}
		}
		return nil
	})
}
