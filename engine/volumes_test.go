package engine

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"dunnage/internal/testenv"
	"dunnage/spec"
)

// dataImage has a data directory of user 1000 with everything that a copy can
// get wrong, in two layers, and a symlink at /evil that leads out.
func (b *bench) dataImage() spec.PinnedImage {
	b.t.Helper()
	return b.load("example.org/data:1", testenv.Image(b.t, testenv.ImageSpec{
		Layers: [][]testenv.File{
			{
				{Path: "data/", Mode: 0o2750, UID: 1000, GID: 1000},
				{Path: "data/file", Mode: 0o640, UID: 1000, GID: 2000, Body: []byte("from the image")},
				{Path: "data/hard", Hard: "data/file", Mode: 0o640, UID: 1000, GID: 2000},
				{Path: "data/gone", Mode: 0o644},
				{Path: "data/sub/", Mode: 0o500, UID: 1000, GID: 1000},
				{Path: "data/sub/setuid", Mode: 0o4755, UID: 1000},
				{Path: "data/absolute", Link: "/etc/shadow", UID: 1000, GID: 1000},
				{Path: "data/up", Link: "../../../../etc/hostname"},
				{Path: "evil", Link: "../../../../../../" + b.daemon.Dir + "/host"},
				{Path: "moved", Link: "/data"},
			},
			{{Path: "data/.wh.gone", Mode: 0o644}},
		},
		Config: v1.Config{Entrypoint: []string{"/testapp"}, Volumes: map[string]struct{}{"/anonymous": {}}},
	}))
}

const wantData = `dgrwxr-x--- 1000 1000 /data
Lrwxrwxrwx 1000 1000 /data/absolute -> /etc/shadow
-rw-r----- 1000 2000 /data/file
-rw-r----- 1000 2000 /data/hard
dr-x------ 1000 1000 /data/sub
urwxr-xr-x 1000 0 /data/sub/setuid
Lrwxrwxrwx 0 0 /data/up -> ../../../../etc/hostname
`

func volumeAt(source, target string) spec.Mount {
	return spec.Mount{Type: spec.MountVolume, Source: source, Target: target}
}

func TestVolumeCopyUp(t *testing.T) {
	b := newBench(t)
	image := b.dataImage()
	for i, target := range []string{"/data", "/moved"} { // a symlink inside the image is followed inside
		r := request(image, i+1, "ls", "/data")
		id := "p_" + target[1:]
		r.Container.Mounts = []spec.Mount{volumeAt(id, target)}
		if out := b.output(r); strings.ReplaceAll(out, target, "/data") != wantData {
			t.Errorf("%s: %s", target, out)
		}
		var file, hard syscall.Stat_t
		dir := filepath.Join(b.cfg.volumesDir(), id, dataDir)
		if err := errors.Join(syscall.Stat(dir+"/file", &file), syscall.Stat(dir+"/hard", &hard)); err != nil || file.Ino != hard.Ino {
			t.Errorf("the hard link became a copy: %v", err)
		}
	}
	// The second user finds what the first wrote.
	r := request(image, 3, "write", "/data/file", "changed")
	r.Container.Mounts = []spec.Mount{volumeAt("p_data", "/data")}
	b.output(r)
	r = request(image, 4, "cat", "/data/file")
	r.Container.Mounts = []spec.Mount{volumeAt("p_data", "/data")}
	if out := b.output(r); out != "changed\n" {
		t.Errorf("the volume has %q", out)
	}
}

// TestVolumeEscape: neither the target nor what is copied leads out of the image.
func TestVolumeEscape(t *testing.T) {
	b := newBench(t)
	if err := os.Mkdir(b.daemon.Dir+"/host", 0o755); err != nil {
		t.Fatal(err)
	}
	b.file("host/secret", "of the host")
	r := request(b.dataImage(), 1, "ls", "/evil/")
	r.Container.Mounts = []spec.Mount{volumeAt("p_evil", "/evil")}
	if out := b.output(r); strings.Contains(out, "secret") {
		t.Errorf("the host shows in the container:\n%s", out)
	}
	entries, err := os.ReadDir(filepath.Join(b.cfg.volumesDir(), "p_evil", dataDir))
	if err != nil || len(entries) != 0 {
		t.Errorf("the volume has %v, %v", entries, err)
	}
	if got, err := os.ReadDir(b.daemon.Dir + "/host"); err != nil || len(got) != 1 {
		t.Errorf("the host's directory has %v, %v", got, err)
	}
}

func TestVolumeLife(t *testing.T) {
	b := newBench(t)
	image := b.dataImage()
	if ok, err := b.VolumeExists(b.ctx, "p_v"); ok || err != nil {
		t.Fatal(ok, err)
	}
	r := request(image, 1, "serve", "8080")
	r.Container.Mounts = []spec.Mount{volumeAt("p_v", "/data")}
	b.run(r)
	if ok, err := b.VolumeExists(b.ctx, "p_v"); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if err := b.RemoveVolume(b.ctx, "p_v"); !errors.Is(err, spec.ErrRefused) || !strings.Contains(err.Error(), r.ID) {
		t.Errorf("remove while mounted: %v", err)
	}
	anonymous := filepath.Join(b.cfg.anonymousDir(), r.ID)
	if code, _, _ := b.exec(r.ID, "", "/testapp", "write", "/anonymous/x", "y"); code != 0 {
		t.Error("the image's VOLUME is not writable")
	}
	if found, err := filepath.Glob(anonymous + "/*/_data/x"); err != nil || len(found) != 1 {
		t.Errorf("anonymous volume: %v %v", found, err)
	}
	if err := b.Remove(b.ctx, r.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(anonymous); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the anonymous volume outlived its replica: %v", err)
	}
	for range 2 {
		if err := b.RemoveVolume(b.ctx, "p_v"); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := os.ReadDir(b.cfg.volumesDir()); err != nil || len(left) != 0 {
		t.Errorf("left: %v %v", left, err)
	}
	for _, id := range []string{"", "..", "../x", "a/b", ".hidden"} {
		if err := b.RemoveVolume(b.ctx, id); !errors.Is(err, spec.ErrRefused) {
			t.Errorf("remove volume %q: %v", id, err)
		}
	}
}

func TestConcurrentFirstUse(t *testing.T) {
	b := newBench(t)
	image := b.dataImage()
	var wg sync.WaitGroup
	for n := range 10 {
		wg.Go(func() {
			r := request(image, n+1, "serve", "8080")
			r.Container.Mounts = []spec.Mount{volumeAt("p_shared", "/data")}
			if err := errors.Join(b.Create(b.ctx, r), b.Start(b.ctx, r.ID)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	list, err := b.Instances(b.ctx)
	if err != nil || len(list) != 10 {
		t.Fatalf("%d instances, %v", len(list), err)
	}
	for _, i := range list {
		if i.Phase != spec.PhaseRunning {
			t.Errorf("%+v", i)
		}
		if code, out, _ := b.exec(i.ID, "", "/testapp", "ls", "/data"); code != 0 || out != wantData {
			t.Errorf("%s sees %s", i.ID, out)
		}
	}
	if left, err := filepath.Glob(b.cfg.volumesDir() + "/.*"); err != nil || len(left) != 0 {
		t.Errorf("left: %v %v", left, err)
	}
}

func TestBindMounts(t *testing.T) {
	b := newBench(t)
	image := b.app()
	r := request(image, 1, "write", "/mnt/a/b/file", "deep")
	base := b.daemon.Dir + "/bind"
	r.Container.Mounts = []spec.Mount{ // the deeper one first: order must not matter
		{Type: spec.MountBind, Source: base + "/b", Target: "/mnt/a/b/", CreateHost: true},
		{Type: spec.MountBind, Source: base + "/a", Target: "/mnt/a", CreateHost: true},
	}
	b.output(r)
	if body, err := os.ReadFile(base + "/b/file"); err != nil || string(body) != "deep" {
		t.Errorf("nested bind: %q %v", body, err)
	}

	r = request(image, 2, "write", "/mnt/file", "x")
	r.Container.Mounts = []spec.Mount{{Type: spec.MountBind, Source: base + "/a", Target: "/mnt", ReadOnly: true, Options: []string{"noexec"}}}
	if out := b.output(r); !strings.Contains(out, "read-only file system") {
		t.Errorf("a read-only bind was written to: %s", out)
	}

	r = request(image, 3, "serve")
	r.Container.Mounts = []spec.Mount{{Type: spec.MountBind, Source: base + "/missing", Target: "/mnt"}}
	err := b.Create(b.ctx, r)
	if !errors.Is(err, spec.ErrRefused) || !strings.Contains(err.Error(), base+"/missing") {
		t.Errorf("missing source: %v", err)
	}
	if list, err := b.Instances(b.ctx); err != nil || len(list) != 0 {
		t.Errorf("a refused create left %v, %v", list, err)
	}
}

func TestSystemMountsAreReplaced(t *testing.T) {
	e := &Engine{}
	got, err := e.mounts(spec.CreateRequest{
		Container: spec.Container{Mounts: []spec.Mount{{Type: spec.MountTmpfs, Target: "/dev/shm/"}, {Type: spec.MountBind, Source: "/x", Target: "/etc/hosts"}}},
		Files:     spec.HostFiles{Hosts: "/net/hosts", Hostname: "/net/hostname"},
	}, ocispec.ImageConfig{})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	depth := 0
	for _, m := range got {
		if seen[m.Destination] != "" {
			t.Errorf("%s is mounted twice", m.Destination)
		}
		seen[m.Destination] = m.Source
		if d := strings.Count(m.Destination, "/"); d < depth {
			t.Errorf("%s comes after something below it", m.Destination)
		} else {
			depth = d
		}
	}
	if seen["/etc/hosts"] != "/x" || seen["/dev/shm"] != "tmpfs" || seen["/etc/hostname"] != "/net/hostname" {
		t.Errorf("%v", seen)
	}
	for _, bad := range []string{"/", "relative", "/.."} {
		_, err := e.mounts(spec.CreateRequest{Container: spec.Container{Mounts: []spec.Mount{{Type: spec.MountTmpfs, Target: bad}}}}, ocispec.ImageConfig{})
		if !errors.Is(err, spec.ErrRefused) {
			t.Errorf("target %q: %v", bad, err)
		}
	}
	if !slices.Contains(bindOptions(spec.Mount{Options: []string{"rshared"}}), "rshared") || slices.Contains(bindOptions(spec.Mount{Options: []string{"rshared"}}), "rprivate") {
		t.Error("the manifest's propagation is overruled")
	}
}
