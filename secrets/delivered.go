package secrets

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"dunnage/internal/fault"
	"dunnage/spec"
)

// seen is what Delivered knows. It looks again when an entry came or went, which
// the directory's time shows, or when something was mounted or unmounted on the
// host, which the kernel tells who polls the list of mounts.
type seen struct {
	mounts  *os.File
	dir     time.Time
	tmpfs   map[string]uint64 // device on each replica's directory, 0 = no mount
	printed map[string]string // fingerprints
}

// Delivered lists the replicas that have a directory, with the fingerprint of
// what is complete on its tmpfs: empty if that isn't there, or not complete.
func (d *Deliverer) Delivered() (map[string]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.look(); err != nil {
		return nil, fmt.Errorf("list delivered secrets: %w", err)
	}
	return maps.Clone(d.seen.printed), nil
}

func (d *Deliverer) look() error {
	moved, err := d.seen.mountsChanged()
	if err != nil {
		return err
	}
	fi, err := os.Stat(d.dir)
	if errors.Is(err, fs.ErrNotExist) {
		d.seen = seen{mounts: d.seen.mounts, printed: map[string]string{}}
		return nil
	}
	if err != nil {
		return err
	}
	if !moved && fi.ModTime().Equal(d.seen.dir) {
		return nil
	}
	return d.read(fi)
}

// read looks at each replica's directory, and into those that aren't the ones seen before.
func (d *Deliverer) read(fi fs.FileInfo) error {
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return err
	}
	now := seen{mounts: d.seen.mounts, dir: fi.ModTime(), tmpfs: map[string]uint64{}, printed: map[string]string{}}
	above := fi.Sys().(*syscall.Stat_t).Dev
	for _, e := range entries {
		name := e.Name()
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(d.dir, name), &st); errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return err
		}
		if st.Dev == above {
			now.tmpfs[name], now.printed[name] = 0, ""
			continue
		}
		now.tmpfs[name], now.printed[name] = st.Dev, d.seen.printed[name]
		if d.seen.tmpfs[name] != st.Dev {
			if now.printed[name], err = readFingerprint(filepath.Join(d.dir, name)); err != nil {
				return err
			}
		}
	}
	d.seen = now
	return nil
}

func readFingerprint(dir string) (string, error) {
	b, err := os.ReadFile(filepath.Join(dir, fingerprintFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return string(b), err
}

// lookAgain is for changes of our own, which could share a tick of the directory's clock.
func (d *Deliverer) lookAgain() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seen.dir = time.Time{}
}

// note writes the fingerprint, or removes it if it is empty.
func (d *Deliverer) note(root *os.Root, replica, fingerprint string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if fingerprint == "" {
		if err := fault.Do("fingerprint remove", func() error { return root.Remove(fingerprintFile) }); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	} else if err := replace(root, placed{fingerprintFile, printFile(fingerprint)}); err != nil {
		return err
	}
	if d.seen.tmpfs[replica] != 0 {
		d.seen.printed[replica] = fingerprint
	}
	return nil
}

func printFile(fingerprint string) spec.DeliveredFile {
	return spec.DeliveredFile{Value: spec.NewSecretValue([]byte(fingerprint)), Mode: 0o400}
}

// mountsChanged reports whether anything was mounted or unmounted since it was
// last called; the first time it says yes.
func (s *seen) mountsChanged() (bool, error) {
	if s.mounts == nil {
		// Not os.Open, whose poller would take the news before this poll does.
		fd, err := unix.Open("/proc/self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return false, fmt.Errorf("open the list of mounts: %w", err)
		}
		s.mounts = os.NewFile(uintptr(fd), "mountinfo")
		return true, nil
	}
	fds := []unix.PollFd{{Fd: int32(s.mounts.Fd()), Events: unix.POLLPRI}}
	for {
		n, err := unix.Poll(fds, 0)
		if !errors.Is(err, unix.EINTR) {
			return n > 0, err
		}
	}
}
