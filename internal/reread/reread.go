// Package reread reads small files that are asked for again and again.
package reread

import (
	"errors"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"

	"dunnage/internal/regular"
)

// Cache keeps what files meant, and reads one again only if the kernel says
// that it is another or has changed. It is safe for concurrent use.
type Cache[T any] struct {
	mu  sync.Mutex
	all map[string]kept[T]
}

type kept[T any] struct {
	version version
	value   T
}

// version tells a file from what was under its name before.
type version struct {
	inode             uint64
	size              int64
	changed, modified time.Time
}

// Read returns decode's result for the file's content. An error, which is
// regular.ReadFile's or decode's, isn't kept.
func (c *Cache[T]) Read(path string, decode func([]byte) (T, error)) (T, error) {
	var none T
	before, err := versionOf(path)
	if err != nil {
		c.Forget(path)
		return none, err
	}
	if value, ok := c.get(path, before); ok {
		return value, nil
	}
	b, err := regular.ReadFile(path)
	if err != nil {
		return none, err
	}
	value, err := decode(b)
	if err != nil {
		return none, err
	}
	// One that was changed between the two is read again the next time.
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all == nil {
		c.all = map[string]kept[T]{}
	}
	c.all[path] = kept[T]{before, value}
	return value, nil
}

func (c *Cache[T]) get(path string, v version) (T, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k, ok := c.all[path]
	return k.value, ok && k.version == v
}

// Forget drops what is kept of a file that won't be asked for again.
func (c *Cache[T]) Forget(path string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.all, path)
}

func versionOf(path string) (version, error) {
	info, err := os.Stat(path)
	if err != nil {
		return version{}, err
	}
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return version{}, &fs.PathError{Op: "stat", Path: path, Err: errors.ErrUnsupported}
	}
	return version{s.Ino, s.Size, time.Unix(s.Ctim.Unix()), info.ModTime()}, nil
}
