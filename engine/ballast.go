package engine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"dunnage/internal/regular"
)

// ballast is room on the file system of the state directory that is given up
// when there is no other: overlayfs and containerd need an inode and some blocks
// to start a process that died, and to note what they remove.
type ballast struct {
	dir string
	mu  sync.Mutex
}

// How large it is, and when it is given up and taken again.
const (
	ballastBytes  = 4 << 20
	ballastInodes = 32

	emptyBytes, emptyInodes   = 1 << 20, 8 // less is full
	plentyBytes, plentyInodes = 16 * ballastBytes, 16 * ballastInodes
)

// adjust gives it up if the disk is full, and takes it again where there is
// plenty: before something that has to be possible even on a full disk. Full is
// what is so for others than root: ext4 keeps blocks back that it calls free and
// gives to nobody. What is given up above root's reserve stays root's.
func (b *ballast) adjust() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	st, err := b.space()
	if err != nil {
		return fmt.Errorf("ask for the space of %s: %w", filepath.Dir(b.dir), err)
	}
	bytes, inodes := int64(st.Bavail)*st.Frsize, st.Ffree
	if st.Files == 0 { // it doesn't count them
		inodes = plentyInodes
	}
	switch {
	case bytes < emptyBytes || inodes < emptyInodes:
		err = os.RemoveAll(b.dir)
	case bytes >= plentyBytes && inodes >= plentyInodes && !b.whole():
		if err = b.fill(); err != nil {
			err = errors.Join(err, os.RemoveAll(b.dir))
		}
	}
	if err != nil {
		return fmt.Errorf("keep room for a full disk: %w", err)
	}
	return nil
}

// whole reports whether it is there: the last of it is made last.
func (b *ballast) whole() bool {
	dir, err := os.Lstat(b.dir)
	if err != nil || !dir.IsDir() { // a link: fill says so
		return false
	}
	_, err = os.Lstat(filepath.Join(b.dir, strconv.Itoa(ballastInodes-1)))
	return err == nil
}

func (b *ballast) fill() error {
	if err := regular.MkdirAll(b.dir, 0o700); err != nil {
		return err
	}
	for i := range ballastInodes {
		f, err := regular.Open(filepath.Join(b.dir, strconv.Itoa(i)), os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		if i == 0 {
			err = unix.Fallocate(int(f.Fd()), 0, 0, ballastBytes)
			if errors.Is(err, unix.EOPNOTSUPP) { // its inodes are better than nothing
				err = nil
			}
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

func (b *ballast) space() (unix.Statfs_t, error) {
	var st unix.Statfs_t
	err := unix.Statfs(filepath.Dir(b.dir), &st)
	return st, err
}

// keepBallast adjusts the ballast. Without it nothing else is worse than before.
func (e *Engine) keepBallast() {
	if err := e.ballast.adjust(); err != nil {
		e.cfg.Log.Warn("ballast", "error", err)
	}
}
