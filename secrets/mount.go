package secrets

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"dunnage/internal/fault"
	"dunnage/internal/regular"
)

// tmpfsSize bounds what stands on one replica's tmpfs, which takes memory only
// for what is there: the largest of 64 secrets, the old file beside the new.
const tmpfsSize = "64M"

const mountFlags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// ensureMounted makes the directory, and the tmpfs on it if there is none.
func ensureMounted(dir string) error {
	if err := regular.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return err
	}
	if err := os.Chmod(filepath.Dir(dir), 0o700); err != nil { // it may be an old one
		return err
	}
	if err := fault.Do("secrets directory make", func() error { return regular.MkdirAll(dir, 0o700) }); err != nil {
		return err
	}
	mounted, err := isMounted(dir)
	if err != nil {
		return err
	}
	if mounted {
		return inMemory(dir)
	}
	return mount(dir)
}

// inMemory refuses what somebody else has mounted over ours.
func inMemory(dir string) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("look at %s: %w", dir, err)
	}
	if fs.Type != unix.TMPFS_MAGIC && fs.Type != unix.RAMFS_MAGIC {
		return fmt.Errorf("what is mounted at %s isn't a tmpfs, and may be a disk: unmount it", dir)
	}
	return nil
}

// mount takes the first that the kernel has of what never writes values to a
// disk: a tmpfs that isn't swapped (Linux 6.4), ramfs, which has no limit, and
// where nothing is swapped a plain tmpfs.
func mount(dir string) error {
	const options = "mode=0700,size=" + tmpfsSize
	err := fault.Do("secrets mount", func() error { return unix.Mount("tmpfs", dir, "tmpfs", mountFlags, options+",noswap") })
	if !errors.Is(err, unix.EINVAL) {
		return mountError(dir, err)
	}
	swaps, err := os.ReadFile("/proc/swaps")
	if err != nil || bytes.Count(swaps, []byte("\n")) > 1 { // the first line is a title
		return mountError(dir, unix.Mount("ramfs", dir, "ramfs", mountFlags, "mode=0700"))
	}
	return mountError(dir, unix.Mount("tmpfs", dir, "tmpfs", mountFlags, options))
}

func mountError(dir string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("mount a tmpfs at %s: %w", dir, err)
}

// isMounted reports whether a tmpfs of ours is on the directory, which may
// itself lie on one.
func isMounted(dir string) (bool, error) {
	var own, above unix.Stat_t
	if err := unix.Lstat(dir, &own); err != nil {
		return false, fmt.Errorf("look at %s: %w", dir, err)
	}
	if own.Mode&unix.S_IFMT != unix.S_IFDIR { // a link would lead the mount elsewhere
		return false, fmt.Errorf("%s is no directory: move it away", dir)
	}
	if err := unix.Lstat(filepath.Dir(dir), &above); err != nil {
		return false, fmt.Errorf("look at %s: %w", filepath.Dir(dir), err)
	}
	return own.Dev != above.Dev, nil
}

// unmount takes away all that is mounted on the directory, also what others have
// mounted there. Of a tmpfs that is in use the files go first.
func unmount(dir string) error {
	for {
		err := fault.Do("secrets unmount", func() error { return unix.Unmount(dir, unix.UMOUNT_NOFOLLOW) })
		if errors.Is(err, unix.EBUSY) {
			if inMemory(dir) == nil {
				if err := empty(dir); err != nil {
					return fmt.Errorf("empty %s: %w", dir, err)
				}
			}
			err = unix.Unmount(dir, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
		}
		switch {
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT): // no mount is left
			return nil
		case err != nil:
			return fmt.Errorf("unmount %s: %w", dir, err)
		}
	}
}

func empty(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return err
}
