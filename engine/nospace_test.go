package engine

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"

	"dunnage/internal/testenv"
	"dunnage/spec"
)

// TestPullOnAFullDisk: a pull that doesn't fit says so at once, leaves nothing of
// it, and works when there is room.
func TestPullOnAFullDisk(t *testing.T) {
	b := newBench(t)
	root := filepath.Join(b.daemon.Dir, "root")
	b.daemon.Kill()
	mount := func(flags uintptr, size string) {
		t.Helper()
		if err := syscall.Mount("tmpfs", root, "tmpfs", flags, "size="+size); err != nil {
			t.Fatal(err)
		}
	}
	mount(0, "24m")
	t.Cleanup(func() {
		if err := syscall.Unmount(root, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	b.daemon.Start()
	b.connect()
	free := func() uint64 {
		t.Helper()
		var st syscall.Statfs_t
		if err := syscall.Statfs(root, &st); err != nil {
			t.Fatal(err)
		}
		return st.Bfree * uint64(st.Bsize)
	}
	img, err := random.Image(40<<20, 1)
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
	ref := newRegistry(t).push(t, "team/large:1", img)
	before := free()
	_, err = b.Pull(b.ctx, ref, nil)
	if !errors.Is(err, spec.ErrRefused) || !strings.Contains(err.Error(), "no space is left on the disk, or no inode; what has arrived of it is dropped; `dunnage df`") {
		t.Errorf("%v", err)
	}
	if after := free(); after+4<<20 < before {
		t.Errorf("%d bytes were free, now %d are", before, after)
	}
	mount(syscall.MS_REMOUNT, "200m")
	if _, err := b.Pull(b.ctx, ref, nil); err != nil {
		t.Errorf("with room: %v", err)
	}
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
