package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"dunnage/internal/regular"
)

// lockTimeout is how long Open waits for another process to let go of the
// file: an agent that is being restarted ends within it.
const lockTimeout = 3 * time.Second

// restore is the next step for a file that can't be read.
const restore = "restore it from a backup: an agent that starts without it knows no project, " +
	"leaves what runs as it is and takes no change until that is removed"

// Store is an open file. Its methods are safe for concurrent use.
type Store struct {
	path string
	mu   sync.RWMutex // held for writing while db is exchanged
	db   *bbolt.DB

	owned atomic.Int64 // bytes of the file that have blocks

	doubt string // see Doubt
}

// Open opens the file at path, creating it and its directory (0700) if there
// is none. It fails if another agent has it open.
func Open(path string) (*Store, error) {
	if err := regular.MkdirThrough(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("create state directory: %w", err)
	}
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		if err := create(path); err != nil {
			return nil, fmt.Errorf("create store %s: %w", path, err)
		}
	}
	err := checkWhole(path)
	var db *bbolt.DB
	var file *os.File
	if err == nil {
		db, file, err = openFile(path, false)
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
	doubt, err := doubtOf(path, file, int64(db.Info().PageSize))
	if err == nil {
		err = removeCopy(path)
	}
	if err == nil {
		err = migrate(db)
	}
	if err == nil {
		err = checkSchema(db, version, buckets)
	}
	if err != nil {
		_ = db.Close() // the first error is the one to report
		return nil, fmt.Errorf("open store %s: %w", path, err)
	}
	s := &Store{path: path, db: db, doubt: doubt}
	s.reach()
	return s, nil
}

// Doubt says why a change that was acknowledged may be missing, as the file was
// when it was opened, and what to do; empty = none may.
func (s *Store) Doubt() string { return s.doubt }

// Close waits for transactions and releases the file.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.db.Close()
}

// openFile waits for the file's lock. Who had it may have written the file anew
// meanwhile: then what was waited for isn't at path any more.
func openFile(path string, readOnly bool) (*bbolt.DB, *os.File, error) {
	for {
		var file *os.File
		db, err := bbolt.Open(path, 0o600, &bbolt.Options{
			Timeout:        lockTimeout,
			ReadOnly:       readOnly,
			FreelistType:   bbolt.FreelistMapType,
			NoFreelistSync: true,
			OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
				var err error
				file, err = os.OpenFile(name, flag, mode)
				return file, err
			},
		})
		if err != nil {
			return nil, nil, err
		}
		opened, err := file.Stat()
		if err == nil {
			var there os.FileInfo
			if there, err = os.Stat(path); err == nil && os.SameFile(opened, there) {
				return db, file, nil
			}
		}
		if err := errors.Join(err, db.Close()); err != nil {
			return nil, nil, err
		}
	}
}

// checkWhole refuses a file that ends before the pages that it counts, or with
// a damaged page: bbolt maps it into memory, and what it reads wrongly there
// would kill the process. A read-only bbolt reads nothing but the first two
// pages, and keeps other agents out meanwhile.
func checkWhole(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Size() == 0 { // bbolt would take it for a new one
		return errors.New("it is empty")
	}
	db, f, err := openFile(path, true)
	if err != nil {
		return err
	}
	err = db.View(func(tx *bbolt.Tx) error {
		info, err := f.Stat()
		if err != nil {
			return err
		}
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
	return errors.Join(syncDir(dir), syncDir(filepath.Dir(dir))) // the directory itself may be new
}

func initialise(path string) error {
	db, _, err := openFile(path, false)
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
