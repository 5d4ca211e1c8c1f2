package engine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"dunnage/internal/fault"
	"dunnage/internal/regular"
	"dunnage/spec"
)

// filesDir holds the files of replicas whose content the release carries.
func (c Config) filesDir(replica string) string {
	return filepath.Join(c.StateDir, "files", replica)
}

// writeFiles writes a replica's files to the disk before its container is
// recorded: where there is a container, its files are there too. They are
// removed with the replica.
func (e *Engine) writeFiles(r spec.CreateRequest) error {
	if !slices.ContainsFunc(r.Container.Files, func(f spec.File) bool { return !f.Template }) {
		return nil
	}
	dir := e.cfg.filesDir(r.ID)
	if err := removeTree(dir); err != nil { // the rest of a crash
		return err
	}
	if err := regular.MkdirThrough(dir, 0o711); err != nil {
		return fmt.Errorf("make directory for configs: %w", err)
	}
	for i, f := range r.Container.Files {
		if f.Template { // comes with the secrets
			continue
		}
		if err := fault.Do("config file write", func() error { return writeFile(e.cfg.filePath(r.ID, i), f) }); err != nil {
			return fmt.Errorf("write config %s: %w", f.Target, err)
		}
	}
	if err := errors.Join(syncDir(dir), syncDir(filepath.Dir(dir))); err != nil {
		return fmt.Errorf("sync configs: %w", err)
	}
	return nil
}

func (c Config) filePath(replica string, i int) string {
	return filepath.Join(c.filesDir(replica), strconv.Itoa(i))
}

func writeFile(path string, f spec.File) error {
	w, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = w.Write(f.Content)
	uid, gid := f.Owner(0, 0) // no template: those aren't written here
	err = errors.Join(err, w.Chown(int(uid), int(gid)))
	// After chown, which takes set-id bits away; past the umask.
	err = errors.Join(err, unix.Fchmod(int(w.Fd()), f.Mode), w.Sync())
	return errors.Join(err, w.Close())
}

// contentMounts are the mounts of a replica's files.
func (e *Engine) contentMounts(r spec.CreateRequest) []specs.Mount {
	var out []specs.Mount
	for i, f := range r.Container.Files {
		if f.Template {
			continue
		}
		out = append(out, specs.Mount{
			Destination: f.Target, Type: "bind", Source: e.cfg.filePath(r.ID, i),
			Options: []string{"rbind", "rprivate", "ro", "nosuid", "nodev"},
		})
	}
	return out
}
