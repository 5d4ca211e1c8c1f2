package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
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

// smallStore gives a bench's containerd a disk of that size ("size=24m"), as tmpfs
// has it. grow makes it another one, free says how many bytes and inodes are left.
func (b *bench) smallStore(size string) (grow func(size string), free func() spec.DiskUse) {
	b.t.Helper()
	root := filepath.Join(b.daemon.Dir, "root")
	b.daemon.Kill()
	mount := func(flags uintptr, size string) {
		b.t.Helper()
		if err := syscall.Mount("tmpfs", root, "tmpfs", flags, size); err != nil {
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
	free = func() spec.DiskUse {
		b.t.Helper()
		f, _, err := filesystem(root)
		if err != nil {
			b.t.Fatal(err)
		}
		return spec.DiskUse{Bytes: f.Free, Inodes: f.FreeInodes}
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
	grow, free := b.smallStore("size=24m")
	ref := newRegistry(t).push(t, "team/large:1", large(t, 40<<20))
	before := free()
	_, err := b.Pull(b.ctx, ref, nil)
	if !errors.Is(err, spec.ErrRefused) || !fullOfBytes.MatchString(err.Error()) || !strings.Contains(err.Error(), "; what has arrived of it is dropped; `dunnage df`") {
		t.Errorf("%v", err)
	}
	if after := free(); after.Bytes+4<<20 < before.Bytes {
		t.Errorf("%+v were free, now %+v are", before, after)
	}
	grow("size=200m")
	if _, err := b.Pull(b.ctx, ref, nil); err != nil {
		t.Errorf("with room: %v", err)
	}
}

// What is said of a full disk, without bytes and without inodes.
var (
	fullOfBytes = regexp.MustCompile(`: the disk is full: the file system of /\S+/root has \S+ \w+ of 24\.0 MiB free; `)
	fullOfFiles = regexp.MustCompile(`: the disk is full: the file system of /\S+/root has \d+ of 1000 inodes free, and \S+ MiB of 200\.0 MiB: it has too many files, not too much data; `)
)

// TestLoadOnAFullDisk: a load says so too, whether its blobs don't fit or what is
// unpacked of them, keeps nothing of it, and works when there is room.
func TestLoadOnAFullDisk(t *testing.T) {
	for name, tc := range map[string]struct {
		disk string
		img  func(t *testing.T) v1.Image
		says *regexp.Regexp
	}{
		"blobs":    {"size=24m", func(t *testing.T) v1.Image { return large(t, 40<<20) }, fullOfBytes},
		"unpacked": {"size=24m", func(t *testing.T) v1.Image { return large(t, 16<<20) }, fullOfBytes},
		"inodes":   {"size=200m,nr_inodes=1000", func(t *testing.T) v1.Image { return many(t, 2000) }, fullOfFiles},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			grow, free := b.smallStore(tc.disk)
			before := free()
			const ref = "example.org/large:1"
			img := tc.img(t)
			_, err := b.Load(b.ctx, testenv.Archive(t, map[string]v1.Image{ref: img}))
			if !errors.Is(err, spec.ErrRefused) || !tc.says.MatchString(err.Error()) || !strings.Contains(err.Error(), "; none of its images is stored; `dunnage df`") {
				t.Errorf("%v", err)
			}
			// containerd collects garbage soon after the load lets go of it.
			for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
				blobs, snapshots, now := b.blobs(), b.snapshots(), free()
				if len(blobs)+len(snapshots) == 0 && now.Bytes+1<<20 >= before.Bytes && now.Inodes+20 >= before.Inodes {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("left over: %q, %q; %+v were free, now %+v are", blobs, snapshots, before, now)
				}
			}
			if list, err := b.ListImages(b.ctx); err != nil || len(list) > 0 {
				t.Errorf("images: %v, %v", list, err)
			}
			grow("size=200m,nr_inodes=20000")
			if _, err := b.Load(b.ctx, testenv.Archive(t, map[string]v1.Image{ref: img})); err != nil {
				t.Errorf("with room: %v", err)
			}
		})
	}
}

// many is an image of so many empty files.
func many(t *testing.T, n int) v1.Image {
	t.Helper()
	files := make([]testenv.File, n)
	for i := range files {
		files[i].Path = fmt.Sprint("file", i)
	}
	return testenv.Image(t, testenv.ImageSpec{Empty: true, Layers: [][]testenv.File{files}})
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

// TestRequestOnAFullDisk: what a rollback, a scale or a restart needs of the store of
// images goes through on a full disk, out of the ballast, and says so where that
// isn't enough.
func TestRequestOnAFullDisk(t *testing.T) {
	b := newBench(t)
	_, free := b.smallStore("size=200m")
	root := filepath.Join(b.daemon.Dir, "root")
	img, err := b.Load(b.ctx, testenv.Archive(t, map[string]v1.Image{"example.org/app:1": testenv.AppImage(t, "1")}))
	if err != nil {
		t.Fatal(err)
	}
	b.ballast.dir, b.recent.path = filepath.Join(root, "ballast"), filepath.Join(root, "images.recent")
	fill := func() {
		t.Helper()
		f, err := os.OpenFile(filepath.Join(root, "full"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		for block := make([]byte, 4096); err == nil; {
			_, err = f.Write(block)
		}
		if err := f.Close(); err != nil || free().Bytes > 0 {
			t.Fatal(err, free())
		}
	}
	requests := map[string]func() error{
		"note": func() error {
			b.recent.all, b.recent.synced = map[string]recentImage{}, map[string]bool{}
			_, err := b.Resolve(b.ctx, img[0].Ref)
			return err
		},
		"retain": func() error { // more than fits into pages that the database has
			var err error
			for i := 0; i < 100 && err == nil; i++ {
				err = b.Retain(b.ctx, fmt.Sprint("shop-release-", i), []spec.PinnedImage{{Ref: img[0].Ref, Digest: img[0].Digest}})
			}
			return err
		},
	}
	for _, name := range []string{"note", "retain"} {
		b.keepBallast()
		if !b.ballast.whole() {
			t.Fatal("there is no ballast")
		}
		fill()
		if err := requests[name](); err != nil || b.ballast.whole() {
			t.Errorf("%s: %v, the ballast is whole: %t", name, err, b.ballast.whole())
		}
		fill()
		if err := requests["note"](); !errors.Is(err, spec.ErrNoSpace) || !strings.HasPrefix(err.Error(), "the disk is full: the file system of "+root) || !strings.Contains(err.Error(), "; `dunnage df`") {
			t.Errorf("%s, without ballast: %v", name, err)
		}
		if err := os.Remove(filepath.Join(root, "full")); err != nil {
			t.Fatal(err)
		}
	}
}

// A full disk says whether it has no bytes or no inodes left, by the path of whoever
// met it, also when that is gone.
func TestWhatIsFull(t *testing.T) {
	dir := testenv.SmallDisk(t, "size=1m,nr_inodes=20")
	fill := func(write func(i int) error) (err error) {
		for i := 0; err == nil; i++ {
			err = write(i)
		}
		return err
	}
	full := fill(func(i int) error { return os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), nil, 0o600) })
	want := "the disk is full: the file system of " + dir + " has 0 of 20 inodes free, and 1.0 MiB of 1.0 MiB: it has too many files, not too much data; "
	if err := sayNoSpace(full); !strings.HasPrefix(err.Error(), want) || !strings.Contains(err.Error(), "`du --inodes -x "+dir+" | sort") {
		t.Errorf("%v", err)
	}
	words := errors.New("mkdir " + dir + "/tmp-1/new: no space left on device: unknown")
	if err := sayNoSpace(words); !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%v", err)
	}
	for i := range 10 {
		if err := os.Remove(filepath.Join(dir, fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Create(filepath.Join(dir, "bytes"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	full = fill(func(int) error { _, err := f.Write(make([]byte, 64<<10)); return err })
	if err := sayNoSpace(full); !strings.HasPrefix(err.Error(), "the disk is full: the file system of "+dir+" has 0 B of 1.0 MiB free; "+roomHint) {
		t.Errorf("%v", err)
	}
	// The kernel's own have neither, and other causes than that.
	if err := sayNoSpace(&os.PathError{Op: "write", Path: "/proc/self/x", Err: syscall.ENOSPC}); !strings.HasPrefix(err.Error(), "the disk is full; "+roomHint) {
		t.Errorf("%v", err)
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
