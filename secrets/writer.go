package secrets

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"dunnage/internal/fault"
)

// writer makes what stands on a tmpfs equal to what should.
type writer struct {
	root    *os.Root
	before  func() error // called once, before the first change
	changed bool
}

func (w *writer) change() error {
	if w.changed {
		return nil
	}
	w.changed = true
	return w.before()
}

// noted is the fingerprint of what is complete.
func (w *writer) noted() string {
	b, err := w.root.ReadFile(fingerprintFile)
	if err != nil {
		return ""
	}
	return string(b)
}

// equal writes what isn't there as it should be, then removes the rest.
func (w *writer) equal(files []placed) error {
	dirs := []string{".", filesDir}
	for _, f := range files {
		for dir := path.Dir(f.name); dir != "."; dir = path.Dir(dir) {
			dirs = append(dirs, dir)
		}
	}
	slices.Sort(dirs) // a directory before what is in it
	dirs = slices.Compact(dirs)
	for _, dir := range dirs[1:] {
		if err := w.mkdir(dir); err != nil {
			return err
		}
	}
	keep := []string{fingerprintFile}
	for _, f := range files {
		keep = append(keep, f.name)
		if err := w.file(f); err != nil {
			return explain(f, err)
		}
	}
	slices.Sort(keep)
	for _, dir := range dirs {
		if err := w.prune(dir, append(slices.Clone(dirs), keep...)); err != nil {
			return err
		}
	}
	return nil
}

func explain(f placed, err error) error {
	if errors.Is(err, syscall.ENOSPC) {
		err = fmt.Errorf("%w: a replica may have %s of secrets, old and new ones together", err, tmpfsSize)
	}
	if f.name == envFile {
		return fmt.Errorf("variables: %w", err)
	}
	return fmt.Errorf("%s: %w", f.Target, err)
}

// mkdir makes a directory that the container's user may pass.
func (w *writer) mkdir(name string) error {
	fi, err := w.root.Lstat(name)
	if err == nil && fi.IsDir() && fi.Mode().Perm() == 0o755 {
		return nil
	}
	if err := w.change(); err != nil {
		return err
	}
	if err == nil && !fi.IsDir() {
		if err := w.root.Remove(name); err != nil {
			return err
		}
	}
	if err := fault.Do("secret directory make", func() error { return w.root.Mkdir(name, 0o755) }); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return w.root.Chmod(name, 0o755) // whatever the umask
}

// file writes beside and renames, so that a reader sees the old file or the new.
func (w *writer) file(f placed) error {
	fi, err := w.root.Lstat(f.name)
	if err == nil && same(fi, f) && w.holds(f) {
		return nil
	}
	if err := w.change(); err != nil {
		return err
	}
	if err == nil && fi.IsDir() {
		if err := w.root.RemoveAll(f.name); err != nil {
			return err
		}
	}
	return replace(w.root, f)
}

func same(fi fs.FileInfo, f placed) bool {
	st := fi.Sys().(*syscall.Stat_t)
	return fi.Mode() == fs.FileMode(f.Mode) && st.Uid == f.UID && st.Gid == f.GID && fi.Size() == int64(len(f.Value.Reveal()))
}

func (w *writer) holds(f placed) bool {
	b, err := w.root.ReadFile(f.name)
	defer clear(b)
	return err == nil && bytes.Equal(b, f.Value.Reveal())
}

func replace(root *os.Root, f placed) error {
	scratch := func() (*os.File, error) { return root.OpenFile(scratchFile, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) }
	out, err := scratch()
	if errors.Is(err, fs.ErrExist) { // of a write that was cut short
		if err := root.Remove(scratchFile); err != nil {
			return err
		}
		out, err = scratch()
	}
	if err != nil {
		return err
	}
	_, err = out.Write(f.Value.Reveal())
	if err == nil {
		err = out.Chown(int(f.UID), int(f.GID))
	}
	if err == nil {
		err = out.Chmod(fs.FileMode(f.Mode))
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return err
	}
	return fault.Do("secret file rename", func() error { return root.Rename(scratchFile, f.name) })
}

// prune removes from a directory what isn't kept.
func (w *writer) prune(dir string, keep []string) error {
	entries, err := fs.ReadDir(w.root.FS(), dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := path.Join(dir, e.Name())
		if slices.Contains(keep, name) {
			continue
		}
		if err := w.change(); err != nil {
			return err
		}
		if err := fault.Do("secret file remove", func() error { return w.root.RemoveAll(name) }); err != nil {
			return fmt.Errorf("remove %s: %w", strings.TrimPrefix(name, filesDir+"/"), err)
		}
	}
	return nil
}
