package engine

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"
)

// rootView is a read-only look into a root file system. Paths are resolved as
// the container would see them: no symlink leads out.
type rootView struct{ dir *os.File }

// openRoot opens the file system that the snapshot's mounts make. The overlay
// is mounted in a mount namespace of its own that lives only inside this
// call, and lives on detached behind the open directory: whatever happens to
// the agent, no mount is left over.
func openRoot(mounts []mount.Mount) (*rootView, error) {
	if len(mounts) != 1 {
		return nil, fmt.Errorf("open root file system: snapshotter gave %d mounts, expected 1", len(mounts))
	}
	m := mounts[0]
	if m.Type == "bind" || m.Type == "rbind" {
		return openDir(m.Source)
	}
	lower := option(m.Options, "lowerdir")
	if m.Type != "overlay" || lower == "" {
		return nil, fmt.Errorf("open root file system: can't look into mounts of type %q; use the overlayfs snapshotter", m.Type)
	}
	layers := strings.Split(lower, ":")
	if len(layers) == 1 { // overlay wants two
		return openDir(layers[0])
	}
	return openOverlay(layers)
}

func option(options []string, name string) string {
	for _, o := range options {
		if v, ok := strings.CutPrefix(o, name+"="); ok {
			return v
		}
	}
	return ""
}

func openDir(path string) (*rootView, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open root file system: %w", err)
	}
	return &rootView{f}, nil
}

func openOverlay(layers []string) (*rootView, error) {
	type result struct {
		view *rootView
		err  error
	}
	done := make(chan result, 1)
	onDyingThread(func() {
		view, err := mountOverlay(layers)
		done <- result{view, err}
	})
	r := <-done
	if r.err != nil {
		return nil, fmt.Errorf("open root file system: %w", r.err)
	}
	return r.view, nil
}

// onDyingThread runs f on a thread that ends afterwards, with whatever f did to
// it. It is never the main thread: that one can't end, and /proc/self would
// show its changed namespace as the whole program's.
func onDyingThread(f func()) {
	go func() {
		runtime.LockOSThread() // never unlocked on the thread that runs f
		if unix.Gettid() != unix.Getpid() {
			f()
			return
		}
		defer runtime.UnlockOSThread()
		over := make(chan struct{})
		onDyingThread(func() { // elsewhere, because this goroutine holds the main thread
			defer close(over)
			f()
		})
		<-over
	}()
}

// mountOverlay runs on a thread of its own. The options of mount(2) have room
// for one page, so the layers are named relative to their common directory.
func mountOverlay(layers []string) (*rootView, error) {
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		return nil, fmt.Errorf("make mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("make mounts private: %w", err)
	}
	base := commonDir(layers)
	if err := unix.Chdir(base); err != nil {
		return nil, fmt.Errorf("enter %s: %w", base, err)
	}
	names := make([]string, len(layers))
	for i, l := range layers {
		name, err := filepath.Rel(base, l)
		if err != nil {
			return nil, fmt.Errorf("name layer: %w", err)
		}
		names[i] = name
	}
	const target = "/proc" // any directory does: nobody else sees this namespace
	if err := unix.Mount("overlay", target, "overlay", unix.MS_RDONLY, "lowerdir="+strings.Join(names, ":")); err != nil {
		return nil, fmt.Errorf("mount overlay of %d layers: %w", len(layers), err)
	}
	fd, err := unix.Open(target, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open overlay: %w", err)
	}
	return &rootView{os.NewFile(uintptr(fd), "rootfs")}, nil
}

func commonDir(paths []string) string {
	dir := filepath.Dir(paths[0])
	for _, p := range paths {
		for dir != "/" && !strings.HasPrefix(p, dir+"/") {
			dir = filepath.Dir(dir)
		}
	}
	return dir
}

// open opens a path inside, with symlinks resolved inside.
func (v *rootView) open(path string, flags int) (*os.File, error) {
	how := unix.OpenHow{Flags: uint64(flags) | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	for {
		fd, err := unix.Openat2(int(v.dir.Fd()), path, &how)
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN): // a rename raced with the look-up
			continue
		case err != nil:
			return nil, &os.PathError{Op: "openat2", Path: path, Err: err}
		}
		return os.NewFile(uintptr(fd), path), nil
	}
}

// file opens a regular file for reading; a missing one is an empty one. Other
// kinds are refused: reading a FIFO or device of an image could block or worse.
func (v *rootView) file(path string) (io.ReadCloser, error) {
	f, err := v.open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return io.NopCloser(strings.NewReader("")), nil
	}
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(fmt.Errorf("%s is no regular file", path), err, f.Close())
	}
	return f, nil
}

func (v *rootView) Close() error { return v.dir.Close() }
