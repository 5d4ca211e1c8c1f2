package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"dunnage/internal/fault"
	"dunnage/internal/regular"
)

// The containers live in the containerd that made them. Another one, although it
// answers (Docker brought it along, or the system's is just being upgraded),
// knows neither them nor their images: "auto" decides once and keeps to it.

// choiceFile holds ModeManaged or the address of a socket.
func choiceFile(stateDir string) string { return filepath.Join(stateDir, "containerd.choice") }

// choose is what "auto" stands for.
func choose(ctx context.Context, stateDir string) (mode string, err error) {
	kept, err := regular.ReadFile(choiceFile(stateDir))
	switch {
	case err == nil:
		return string(kept), nil
	case !errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("read which containerd was used last: %w", err)
	case answers(ctx, SystemAddress):
		return SystemAddress, nil
	}
	return ModeManaged, nil
}

// remember keeps the choice for the next "auto", durably.
func remember(stateDir, mode string) error {
	path := choiceFile(stateDir)
	if kept, err := regular.ReadFile(path); err == nil && string(kept) == mode {
		return nil
	}
	err := regular.MkdirThrough(stateDir, 0o700)
	if err == nil {
		err = replaceDurably("containerd choice rename", path, mode)
	}
	if err != nil {
		return fmt.Errorf("keep which containerd is used: %w", err)
	}
	return nil
}

// nextSuffix names a file that is to take another's place.
const nextSuffix = ".new"

// replaceDurably leaves the old text or the new one, whenever the power fails.
// The rename is a fault point called name.
func replaceDurably(name, path, text string) error {
	next := path + nextSuffix
	f, err := regular.Open(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(next))
	}
	if err := fault.Do(name, func() error { return os.Rename(next, path) }); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}
