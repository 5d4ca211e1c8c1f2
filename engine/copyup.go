package engine

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// copyUp copies what the image has at target into the empty directory dst:
// owners, modes, times, symlinks as they are, extended attributes, hard links.
// Nothing at target is success. Neither a symlink in the image nor one that is
// being copied can lead outside.
func copyUp(view *rootView, target, dst string) error {
	dir, err := view.open(target, unix.O_RDONLY|unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open %s in the image: %w", target, err)
	}
	defer dir.Close()
	from, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", dir.Fd()))
	if err != nil {
		return fmt.Errorf("open %s in the image: %w", target, err)
	}
	defer from.Close() //nolint:errcheck // read only
	to, err := os.OpenRoot(dst)
	if err != nil {
		return err
	}
	c := &copier{from: from, to: to, links: make(map[inode]string)}
	if err := errors.Join(c.dir("."), to.Close()); err != nil {
		return fmt.Errorf("copy %s of the image: %w", target, err)
	}
	return nil
}

// unixStat is what os.FileInfo.Sys holds.
type unixStat = syscall.Stat_t

type inode struct{ dev, ino uint64 }

type copier struct {
	from, to *os.Root
	links    map[inode]string // first name of each file with several
}

// dir copies a directory's entries, then its own attributes: adding entries
// changes the times, and a read-only mode comes last.
func (c *copier) dir(name string) error {
	f, err := c.from.Open(name)
	if err != nil {
		return err
	}
	entries, err := f.ReadDir(-1)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	for _, e := range entries {
		if err := c.entry(path.Join(name, e.Name())); err != nil {
			return err
		}
	}
	info, err := c.from.Lstat(name)
	if err != nil {
		return err
	}
	return c.attributes(name, info)
}

func (c *copier) entry(name string) error {
	info, err := c.from.Lstat(name)
	if err != nil {
		return err
	}
	st := info.Sys().(*unixStat)
	if !info.IsDir() && st.Nlink > 1 {
		id := inode{st.Dev, st.Ino}
		if first, ok := c.links[id]; ok {
			return c.to.Link(first, name)
		}
		c.links[id] = name
	}
	switch info.Mode().Type() {
	case fs.ModeDir:
		if err := c.to.Mkdir(name, 0o700); err != nil {
			return err
		}
		return c.dir(name)
	case fs.ModeSymlink:
		return c.symlink(name, st)
	case 0:
		if err := c.file(name); err != nil {
			return err
		}
		return c.attributes(name, info)
	}
	return c.node(name, st)
}

func (c *copier) file(name string) error {
	src, err := c.from.Open(name)
	if err != nil {
		return err
	}
	dst, err := c.to.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return errors.Join(err, src.Close())
	}
	_, err = io.Copy(dst, src)
	if err == nil {
		err = copyXattrs(src, dst)
	}
	return errors.Join(err, src.Close(), dst.Close())
}

func (c *copier) symlink(name string, st *unixStat) error {
	to, err := c.from.Readlink(name)
	if err != nil {
		return err
	}
	if err := c.to.Symlink(to, name); err != nil {
		return err
	}
	return c.to.Lchown(name, int(st.Uid), int(st.Gid))
}

// node copies FIFOs. Devices and sockets are left out: a device file of an
// image has no business on the host's disk.
func (c *copier) node(name string, st *unixStat) error {
	if st.Mode&unix.S_IFMT != unix.S_IFIFO {
		return nil
	}
	parent, err := c.to.Open(path.Dir(name))
	if err != nil {
		return err
	}
	err = unix.Mknodat(int(parent.Fd()), path.Base(name), st.Mode&0o7777|unix.S_IFIFO, 0)
	return errors.Join(err, parent.Close(), c.to.Lchown(name, int(st.Uid), int(st.Gid)))
}

// attributes sets the owner before the mode, because a change of owner clears
// set-id bits.
func (c *copier) attributes(name string, info fs.FileInfo) error {
	st := info.Sys().(*unixStat)
	if err := c.to.Lchown(name, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := c.to.Chmod(name, info.Mode()&(fs.ModePerm|fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky)); err != nil {
		return err
	}
	return c.to.Chtimes(name, info.ModTime(), info.ModTime())
}

// copyXattrs copies user attributes and file capabilities; what the kernel or
// a security module keeps there belongs to the source.
func copyXattrs(src, dst *os.File) error {
	size, err := unix.Flistxattr(int(src.Fd()), nil)
	if err != nil || size == 0 {
		return ignoreUnsupported(err)
	}
	list := make([]byte, size)
	if size, err = unix.Flistxattr(int(src.Fd()), list); err != nil {
		return err
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(list[:size]), "\x00"), "\x00") {
		if !strings.HasPrefix(name, "user.") && name != "security.capability" {
			continue
		}
		n, err := unix.Fgetxattr(int(src.Fd()), name, nil)
		if err != nil {
			return err
		}
		value := make([]byte, n)
		if n, err = unix.Fgetxattr(int(src.Fd()), name, value); err != nil {
			return err
		}
		if err := ignoreUnsupported(unix.Fsetxattr(int(dst.Fd()), name, value[:n], 0)); err != nil {
			return err
		}
	}
	return nil
}

func ignoreUnsupported(err error) error {
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	return err
}
