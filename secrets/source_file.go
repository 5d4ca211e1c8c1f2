package secrets

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"dunnage/internal/fault"
)

// fileSource is a key file: 64 hex digits and a line end, for its owner only.
// A rotation writes the new key beside it, as PATH.new, and renames that over it
// once the store is sealed with it.
type fileSource struct{ path string }

func (s fileSource) kind() string   { return kindFile }
func (s fileSource) String() string { return "file " + s.path }

// first reads the key file that is there, or makes one.
func (s fileSource) first() (*key, error) {
	path, err := resolve(s.path)
	if err != nil {
		return nil, err
	}
	k, err := readKeyFile(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	if k, err = randomKey(); err != nil {
		return nil, err
	}
	if err := writeKeyFile(path, k); err != nil {
		k.free()
		return nil, err
	}
	return k, nil
}

// find ends what a rotation began: the new key takes its place if it fits, and
// goes if the one in its place does.
func (s fileSource) find(fits func(*key) bool) (*key, error) {
	k, path, err := s.look(fits)
	switch {
	case err != nil:
		return nil, err
	case strings.HasSuffix(path, ".new"):
		_ = move(strings.TrimSuffix(path, ".new")) // it opens where it is, too
	default:
		for _, left := range []string{".tmp", ".new", ".new.tmp"} {
			_ = os.Remove(path + left) // it may stay, too: it is in nobody's way
		}
	}
	return k, nil
}

func (s fileSource) peek(fits func(*key) bool) (*key, error) {
	k, _, err := s.look(fits)
	return k, err
}

// look finds the key in its place or beside it, and says where.
func (s fileSource) look(fits func(*key) bool) (k *key, where string, err error) {
	path, err := resolve(s.path)
	if err != nil {
		return nil, "", err
	}
	k, missing := readKeyFile(path)
	if missing == nil && fits(k) {
		return k, path, nil
	}
	k.free()
	if k, err := readKeyFile(path + ".new"); err == nil {
		if fits(k) {
			return k, path + ".new", nil
		}
		k.free()
	}
	switch {
	case errors.Is(missing, fs.ErrNotExist):
		return nil, "", fmt.Errorf("the key file %s is missing; restore it from its copy, then `dunnage unlock`%s", s.path, giveUp)
	case missing != nil:
		return nil, "", missing
	}
	return nil, "", fmt.Errorf("the key in %s %w; restore the right one from its copy, then `dunnage unlock`%s", s.path, errOther, giveUp)
}

// vacant refuses where a first key would take the place of another one.
func (s fileSource) vacant(fits func(*key) bool) error {
	path, err := resolve(s.path)
	if err != nil {
		return err
	}
	k, err := readKeyFile(path)
	defer k.free()
	if errors.Is(err, fs.ErrNotExist) || err == nil && fits(k) {
		return nil
	}
	return fmt.Errorf("there is a key file %s already, which may open another store or a copy of this one: move it away (`mv %s %s.old`), then try again", path, path, path)
}

// next takes a key that an abandoned rotation left, or that somebody put in the
// place of the one to come; else it makes one. No key file is ever overwritten
// but by place.
func (s fileSource) next(fits func(*key) bool) (*key, func() error, error) {
	path, err := resolve(s.path)
	if err != nil {
		return nil, nil, err
	}
	if k, err := readKeyFile(path + ".new"); err == nil && fits(k) {
		k.free()
		if err := move(path); err != nil {
			return nil, nil, err
		}
	} else {
		k.free()
	}
	k, err := readKeyFile(path)
	switch {
	case err == nil && !fits(k):
		return k, nothingToDo, nil
	case err == nil:
		k.free()
	case !errors.Is(err, fs.ErrNotExist):
		return nil, nil, err
	}
	k, err = readKeyFile(path + ".new")
	if errors.Is(err, fs.ErrNotExist) {
		if k, err = randomKey(); err == nil {
			err = writeKeyFile(path+".new", k)
		}
	}
	if err != nil {
		k.free()
		return nil, nil, err
	}
	return k, func() error { return move(path) }, nil
}

// resolve follows links, so that the new key is written where the key is, and
// the link stays one.
func resolve(path string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if err == nil {
		return real, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("key file %s: %w", path, err)
	}
	if _, err := os.Lstat(path); err == nil {
		return "", fmt.Errorf("the key file %s is a link to nothing; restore what it names, or mount it, then `dunnage unlock`", path)
	}
	return path, nil
}

// readKeyFile refuses a file that others may read. A missing one wraps fs.ErrNotExist.
func readKeyFile(path string) (*key, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	owner := fi.Sys().(*syscall.Stat_t).Uid
	switch {
	case !fi.Mode().IsRegular():
		return nil, fmt.Errorf("the key file %s isn't a file; move it away and restore the key from its copy", path)
	case fi.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("others than its owner may use the key file %s (mode %04o); `chmod 0400 %s`, and if they may have read it, `dunnage secret rotate-key --full` afterwards", path, fi.Mode().Perm(), path)
	case owner != 0 && int(owner) != os.Geteuid():
		return nil, fmt.Errorf("the key file %s belongs to user %d, who can read and change it; `chown root %s`", path, owner, path)
	}
	k, err := keyFrom(f)
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w; restore it from its copy%s", path, err, giveUp)
	}
	return k, nil
}

func keyFrom(f *os.File) (*key, error) {
	text, err := readSmall(f, 256)
	if err != nil {
		return nil, err
	}
	defer text.free()
	return hexKey(text.read)
}

// small is what was read into locked memory.
type small struct {
	page
	read []byte
}

// readSmall reads all of f, which may have no more than max bytes.
func readSmall(f io.Reader, max int) (small, error) {
	p, err := newPage(max + 1)
	if err != nil {
		return small{}, err
	}
	n, err := io.ReadFull(f, p)
	switch {
	case err == nil:
		p.free()
		return small{}, fmt.Errorf("more than %d bytes", max)
	case err != io.EOF && err != io.ErrUnexpectedEOF:
		p.free()
		return small{}, err
	}
	return small{p, p[:n]}, nil
}

// writeKeyFile makes the file, whole and durable or not at all. One that is
// there stays, and is an error.
func writeKeyFile(path string, k *key) error {
	text, err := newPage(2*keySize + 1)
	if err != nil {
		return err
	}
	defer text.free()
	hex.Encode(text, k.bytes())
	text[2*keySize] = '\n'

	temporary := path + ".tmp"
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write key file %s: %w", path, err)
	}
	defer os.Remove(temporary)
	if err := fault.Do("key file write", func() error { return writeSynced(temporary, text) }); err != nil {
		return fmt.Errorf("write key file %s: %w", path, err)
	}
	if err := fault.Do("key file link", func() error { return os.Link(temporary, path) }); err != nil { // where a rename would replace
		return fmt.Errorf("write key file %s: %w", path, err)
	}
	return syncDir(filepath.Dir(path))
}

func writeSynced(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o400)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Sync(), f.Close())
}

// move puts the new key into its place.
func move(path string) error {
	if err := fault.Do("key file rename", func() error { return os.Rename(path+".new", path) }); err != nil {
		return fmt.Errorf("put the new key in its place: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
