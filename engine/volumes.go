package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"

	"dunnage/internal/fault"
	"dunnage/internal/regular"
	"dunnage/spec"
)

// A named volume is StateDir/volumes/<id>/_data. It appears whole, by a
// rename, after it was filled from the image: a crash leaves none or all of it.
//
// An anonymous one is StateDir/anonymous/<replica>/<hash of the target>/_data
// and goes with its replica.

const dataDir = "_data"

var volumeID = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

// volumePath is the directory that a volume mount shows.
func (e *Engine) volumePath(replica string, m spec.Mount) (string, error) {
	if m.Source == "" {
		sum := sha256.Sum256([]byte(m.Target))
		return filepath.Join(e.cfg.anonymousDir(), replica, hex.EncodeToString(sum[:6]), dataDir), nil
	}
	return e.namedVolume(m.Source)
}

func (e *Engine) namedVolume(id string) (string, error) {
	if !volumeID.MatchString(id) {
		return "", fmt.Errorf("volume %q: a name has letters, digits, _, . and -: %w", id, spec.ErrRefused)
	}
	return filepath.Join(e.cfg.volumesDir(), id, dataDir), nil
}

// VolumeExists reports whether the volume has been created.
func (e *Engine) VolumeExists(_ context.Context, id string) (bool, error) {
	dir, err := e.namedVolume(id)
	if err != nil {
		return false, err
	}
	_, err = os.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// RemoveVolume deletes a named volume with its data. One that a container
// mounts is refused; one that is gone is success.
func (e *Engine) RemoveVolume(ctx context.Context, id string) error {
	dir, err := e.namedVolume(id)
	if err != nil {
		return err
	}
	defer e.volumes.Lock(filepath.Dir(dir))()
	users, err := e.volumeUsers(ctx, id)
	if err != nil {
		return fmt.Errorf("remove volume %s: %w", id, err)
	}
	if len(users) > 0 {
		return fmt.Errorf("remove volume %s: %s mounts it; stop and remove that first: %w", id, users[0], spec.ErrRefused)
	}
	return removeTree(filepath.Dir(dir))
}

func (e *Engine) volumeUsers(ctx context.Context, id string) ([]string, error) {
	found, err := e.client.ContainerService().List(ctx, ownedFilter)
	if err != nil {
		return nil, e.wrap(ctx, err, "list containers")
	}
	var users []string
	for _, c := range found {
		r, err := recordOf(c)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(r.Mounts, func(m spec.Mount) bool { return m.Type == spec.MountVolume && m.Source == id }) {
			users = append(users, c.ID)
		}
	}
	return users, nil
}

// What is being filled, and what is being deleted, stands beside the rest under
// a name of its own, which no volume or replica can have.
const (
	fillingPrefix = ".new-"
	removedPrefix = ".removed-"
)

// clearTrees deletes what an agent that was killed had begun to fill or to delete.
func (c Config) clearTrees() error {
	for _, dir := range []string{c.volumesDir(), c.anonymousDir(), c.filesDir("")} {
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("look for unfinished volumes and configs: %w", err)
		}
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), fillingPrefix) && !strings.HasPrefix(e.Name(), removedPrefix) {
				continue
			}
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return fmt.Errorf("remove what a killed agent left: %w", err)
			}
		}
	}
	return nil
}

// removeTree takes the directory out of sight by a rename, then deletes it.
func removeTree(dir string) error {
	trash := filepath.Join(filepath.Dir(dir), removedPrefix+filepath.Base(dir))
	err := fault.Do("tree remove", func() error { return os.RemoveAll(trash) }) // of a removal that crashed
	if err == nil {
		err = fault.Do("tree rename away", func() error { return os.Rename(dir, trash) })
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = fault.Do("tree remove", func() error { return os.RemoveAll(trash) })
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", dir, err)
	}
	return nil
}

// prepareMounts makes what a replica's mounts need on the host: directories
// for bind mounts, volumes filled from the image. It is idempotent; root is
// only opened when a volume is to be filled.
func (e *Engine) prepareMounts(replica string, mounts []spec.Mount, root func() (*rootView, error)) error {
	for _, m := range mounts {
		var err error
		switch m.Type {
		case spec.MountBind:
			err = checkBind(m)
		case spec.MountVolume:
			err = e.prepareVolume(replica, m, root)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) prepareVolume(replica string, m spec.Mount, root func() (*rootView, error)) error {
	dir, err := e.volumePath(replica, m)
	if err != nil {
		return err
	}
	defer e.volumes.Lock(filepath.Dir(dir))()
	if _, err := os.Lstat(dir); err == nil {
		return nil
	}
	if err := e.makeVolume(dir, m, root); err != nil {
		return fmt.Errorf("make volume %s at %s: %w", m.Source, m.Target, err)
	}
	return nil
}

// makeVolume fills a directory beside the final place and renames it there.
func (e *Engine) makeVolume(dir string, m spec.Mount, root func() (*rootView, error)) (err error) {
	parent := filepath.Dir(filepath.Dir(dir))
	if err := regular.MkdirThrough(parent, 0o711); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(parent, fillingPrefix)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }() // nothing is left of it after the rename
	data := filepath.Join(tmp, dataDir)
	// What lies above must let the container's user through to the data.
	if err := errors.Join(os.Chmod(tmp, 0o711), os.Mkdir(data, 0o755), os.Chmod(data, 0o755)); err != nil {
		return err
	}
	if !m.NoCopy {
		view, err := root()
		if err != nil {
			return err
		}
		if err := copyUp(view, m.Target, data); err != nil {
			return err
		}
	}
	if err := syncFS(data); err != nil {
		return err
	}
	if err := fault.Do("volume rename", func() error { return os.Rename(tmp, filepath.Dir(dir)) }); err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, unix.ENOTEMPTY) {
		return err
	}
	return syncDir(parent)
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// syncFS writes the file system that holds path to its disk.
func syncFS(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	err = unix.Syncfs(int(f.Fd()))
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("sync the file system of %s: %w", path, err)
	}
	return nil
}

// lazyRoot opens the root file system once, when it is first asked for.
func lazyRoot(mounts func() ([]mount.Mount, error)) (open func() (*rootView, error), closeRoot func()) {
	var view *rootView
	open = func() (*rootView, error) {
		if view != nil {
			return view, nil
		}
		ms, err := mounts()
		if err != nil {
			return nil, err
		}
		view, err = openRoot(ms)
		return view, err
	}
	return open, func() {
		if view != nil {
			_ = view.Close() // read only
		}
	}
}
