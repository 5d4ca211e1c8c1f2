package engine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"

	"dunnage/internal/testenv"
	"dunnage/spec"
)

// smallStore gives a bench's containerd a disk of that size, as tmpfs has it.
// grow makes it another one, free says how many bytes are left.
func (b *bench) smallStore(size string) (grow func(size string), free func() uint64) {
	b.t.Helper()
	root := filepath.Join(b.daemon.Dir, "root")
	b.daemon.Kill()
	mount := func(flags uintptr, size string) {
		b.t.Helper()
		if err := syscall.Mount("tmpfs", root, "tmpfs", flags, "size="+size); err != nil {
			b.t.Fatal(err)
		}
	}
	mount(0, size)
	b.t.Cleanup(func() {
		if err := syscall.Unmount(root, syscall.MNT_DETACH); err != nil {
			b.t.Error(err)
		}
	})
	b.daemon.Start()
	b.connect()
	free = func() uint64 {
		b.t.Helper()
		var st syscall.Statfs_t
		if err := syscall.Statfs(root, &st); err != nil {
			b.t.Fatal(err)
		}
		return st.Bfree * uint64(st.Bsize)
	}
	return func(size string) { mount(syscall.MS_REMOUNT, size) }, free
}

// large is an image of so many bytes that don't compress.
func large(t *testing.T, size int64) v1.Image {
	t.Helper()
	img, err := random.Image(size, 1)
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	app, err := testenv.AppImage(t, "1").ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config.OS, config.Architecture = app.OS, app.Architecture
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	return img
}

// TestPullOnAFullDisk: a pull that doesn't fit says so at once, leaves nothing of
// it, and works when there is room.
func TestPullOnAFullDisk(t *testing.T) {
	b := newBench(t)
	grow, free := b.smallStore("24m")
	ref := newRegistry(t).push(t, "team/large:1", large(t, 40<<20))
	before := free()
	_, err := b.Pull(b.ctx, ref, nil)
	if !errors.Is(err, spec.ErrRefused) || !strings.Contains(err.Error(), "no space is left on the disk, or no inode; what has arrived of it is dropped; `dunnage df`") {
		t.Errorf("%v", err)
	}
	if after := free(); after+4<<20 < before {
		t.Errorf("%d bytes were free, now %d are", before, after)
	}
	grow("200m")
	if _, err := b.Pull(b.ctx, ref, nil); err != nil {
		t.Errorf("with room: %v", err)
	}
}

// TestLoadOnAFullDisk: a load says so too, whether its blobs don't fit or what is
// unpacked of them, keeps no blob and no name of it, and works when there is room.
func TestLoadOnAFullDisk(t *testing.T) {
	for name, size := range map[string]int64{"blobs": 40 << 20, "unpacked": 16 << 20} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			grow, free := b.smallStore("24m")
			before := free()
			const ref = "example.org/large:1"
			img := large(t, size)
			_, err := b.Load(b.ctx, testenv.Archive(t, map[string]v1.Image{ref: img}))
			if !errors.Is(err, spec.ErrRefused) || !strings.Contains(err.Error(), "load archive: no space is left on the disk, or no inode; none of its images is stored; `dunnage df`") {
				t.Errorf("%v", err)
			}
			// containerd collects garbage soon after the load lets go of it.
			for deadline := time.Now().Add(30 * time.Second); len(b.blobs()) > 0; time.Sleep(50 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("left over: %v", b.blobs())
				}
			}
			if list, err := b.ListImages(b.ctx); err != nil || len(list) > 0 {
				t.Errorf("images: %v, %v", list, err)
			}
			// So it does with what was unpacked, and a snapshot's files go after it.
			for deadline := time.Now().Add(30 * time.Second); len(b.snapshots()) > 0 || free()+1<<20 < before; time.Sleep(50 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("left over: %v; %d bytes were free, now %d are", b.snapshots(), before, free())
				}
			}
			grow("200m")
			if _, err := b.Load(b.ctx, testenv.Archive(t, map[string]v1.Image{ref: img})); err != nil {
				t.Errorf("with room: %v", err)
			}
		})
	}
}

// snapshots lists what the snapshotter has, begun or whole.
func (b *bench) snapshots() (keys []string) {
	b.t.Helper()
	err := b.client.SnapshotService(b.cfg.Snapshotter).Walk(b.ctx, func(_ context.Context, i snapshots.Info) error {
		keys = append(keys, i.Name)
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return keys
}

// A full disk is told in its words, whoever met it, and anything else as it was.
func TestSayNoSpace(t *testing.T) {
	for _, full := range []error{
		&os.PathError{Op: "mkdir", Path: "/var/lib/x", Err: syscall.ENOSPC},
		errors.New("failed to create temp dir: mkdir /var/lib/containerd/new-1: no space left on device: unknown"),
	} {
		err := sayNoSpace(full)
		if !errors.Is(err, spec.ErrNoSpace) || !strings.Contains(err.Error(), "`dunnage df`") || !strings.Contains(err.Error(), full.Error()) {
			t.Errorf("%v", err)
		}
	}
	if other := errors.New("no such image"); sayNoSpace(other) != other {
		t.Error(sayNoSpace(other))
	}
}
