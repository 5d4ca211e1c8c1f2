// Package powercut is a disk whose power can be cut at any instant, also a past
// one. The file that a loop device stands on is served by FUSE, which notes each
// write and each flush that the kernel sends. What the disk may hold after a cut
// is all that was written before the last flush, and of what came later any part:
// a disk writes its cache in whatever order it likes, and single sectors of a
// write. Killing processes shows nothing of that, because the kernel lives on
// and keeps what it hasn't written yet.
package powercut

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// sector is what a disk writes whole or not at all, in bytes. Older ones promise
// only 512, with which ext4 itself can be lost: the checksum of its journal's
// superblock covers two of those.
const sector = 4096

// Disk notes what is written to it.
type Disk struct {
	t      testing.TB
	dir    string   // of its files and of the FUSE mount
	before *os.File // what it held in the beginning
	now    *os.File // what it holds
	data   *os.File // what was written, one after the other
	size   int64
	served *fuse.Server

	mu    sync.Mutex
	notes []note
	end   int64 // of data
}

// note is a write or, with length 0, a flush.
type note struct {
	at, length int64
	data       int64 // where it is in Disk.data
}

// New makes a disk of so many bytes with an empty ext4 on it. It ends with the
// test. It needs root and /dev/fuse.
func New(t testing.TB, size int64) *Disk {
	t.Helper()
	image := filepath.Join(t.TempDir(), "empty")
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, size)); err != nil {
		t.Fatal(err)
	}
	// What ext4 would lay out later by itself would be noted as writes.
	run(t, "mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard", image)
	return Of(t, image)
}

// Of is a disk that holds the image to begin with.
func Of(t testing.TB, image string) *Disk {
	t.Helper()
	dir, err := os.MkdirTemp("", "powercut")
	if err != nil {
		t.Fatal(err)
	}
	d := &Disk{t: t, dir: dir}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	d.before, d.now, d.data = d.copy(image, "before"), d.copy(image, "now"), d.create("data")
	info, err := d.now.Stat()
	if err != nil {
		t.Fatal(err)
	}
	d.size = info.Size()
	mounted := filepath.Join(dir, "fuse")
	if err := os.Mkdir(mounted, 0o700); err != nil {
		t.Fatal(err)
	}
	root := &fs.Inode{}
	d.served, err = fs.Mount(mounted, root, &fs.Options{
		MountOptions: fuse.MountOptions{DirectMountStrict: true, MaxWrite: 1 << 20, FsName: "powercut", Name: "powercut"},
		OnAdd: func(ctx context.Context) {
			root.AddChild("disk", root.NewPersistentInode(ctx, &file{disk: d}, fs.StableAttr{Mode: syscall.S_IFREG}), false)
		},
	})
	if err != nil {
		t.Fatalf("serve a disk by FUSE: %v", err)
	}
	t.Cleanup(func() {
		if err := d.served.Unmount(); err != nil {
			t.Errorf("end a disk: %v", err)
		}
	})
	return d
}

func (d *Disk) create(name string) *os.File {
	f, err := os.Create(filepath.Join(d.dir, name))
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = f.Close() })
	return f
}

func (d *Disk) copy(image, name string) *os.File {
	d.t.Helper()
	path := filepath.Join(d.dir, name)
	run(d.t, "cp", "--sparse=always", image, path)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = f.Close() })
	return f
}

// Mount mounts the disk at dir until the end of the test or Unmount.
func (d *Disk) Mount(dir string) {
	d.t.Helper()
	Mount(d.t, filepath.Join(d.dir, "fuse", "disk"), dir)
}

// Now is the present instant: how many writes and flushes there were.
func (d *Disk) Now() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.notes)
}

// Cut makes an image, called path, of what the disk may hold if the power was
// cut at the instant. The same random numbers make the same image.
func (d *Disk) Cut(instant int, random *rand.Rand, path string) {
	d.t.Helper()
	d.mu.Lock()
	notes := slices.Clone(d.notes[:instant])
	d.mu.Unlock()
	run(d.t, "cp", "--sparse=always", d.before.Name(), path)
	image, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		d.t.Fatal(err)
	}
	defer image.Close()
	safe := 0
	for i, n := range notes {
		if n.length == 0 {
			safe = i
		}
	}
	odds := random.Float64() // of a write to have come through
	for i, n := range notes {
		if err := d.replay(image, n, i < safe, odds, random); err != nil {
			d.t.Fatalf("make the image of a cut: %v", err)
		}
	}
}

// replay does a write again: all of it if it is safe, else by chance all, some
// sectors or nothing.
func (d *Disk) replay(image *os.File, n note, safe bool, odds float64, random *rand.Rand) error {
	b := make([]byte, n.length)
	if _, err := d.data.ReadAt(b, n.data); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	torn := !safe && random.IntN(8) == 0
	switch {
	case !torn && (safe || random.Float64() < odds):
		_, err := image.WriteAt(b, n.at)
		return err
	case !torn:
		return nil
	}
	for at := 0; at < len(b); at += sector {
		if random.IntN(2) == 0 {
			continue
		}
		if _, err := image.WriteAt(b[at:min(at+sector, len(b))], n.at+int64(at)); err != nil {
			return err
		}
	}
	return nil
}

// file is the disk as the loop device sees it.
type file struct {
	fs.Inode
	disk *Disk
}

var (
	_ fs.NodeGetattrer = (*file)(nil)
	_ fs.NodeOpener    = (*file)(nil)
	_ fs.NodeReader    = (*file)(nil)
	_ fs.NodeWriter    = (*file)(nil)
	_ fs.NodeFsyncer   = (*file)(nil)
)

// Getattr implements fs.NodeGetattrer.
func (f *file) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Size = syscall.S_IFREG|0o600, uint64(f.disk.size)
	return 0
}

// Open implements fs.NodeOpener.
func (f *file) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) { return nil, 0, 0 }

// Read implements fs.NodeReader.
func (f *file) Read(_ context.Context, _ fs.FileHandle, b []byte, at int64) (fuse.ReadResult, syscall.Errno) {
	n, err := f.disk.now.ReadAt(b, at)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fs.ToErrno(err)
	}
	return fuse.ReadResultData(b[:n]), 0
}

// Write implements fs.NodeWriter.
func (f *file) Write(_ context.Context, _ fs.FileHandle, b []byte, at int64) (uint32, syscall.Errno) {
	d := f.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := d.now.WriteAt(b, at); err != nil {
		return 0, fs.ToErrno(err)
	}
	if _, err := d.data.WriteAt(b, d.end); err != nil {
		return 0, fs.ToErrno(err)
	}
	d.notes = append(d.notes, note{at, int64(len(b)), d.end})
	d.end += int64(len(b))
	return uint32(len(b)), 0
}

// Fsync implements fs.NodeFsyncer: that is what the loop device makes of a flush.
func (f *file) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	d := f.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	d.notes = append(d.notes, note{})
	return 0
}

// Mount mounts the image at dir, which it makes, until the end of the test or
// Unmount. The kernel does what it does at a boot: it replays the journal.
func Mount(t testing.TB, image, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, "mount", "-t", "ext4", "-o", "loop", image, dir)
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) }) // gone already, as a rule
}

// Unmount unmounts what Mount has mounted.
func Unmount(t testing.TB, dir string) {
	t.Helper()
	run(t, "umount", dir)
}

func run(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", name, err, fmt.Sprintf("%.500s", out))
	}
}
