package engine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"dunnage/internal/testenv"
	"dunnage/spec"
)

// TestManyLayers runs an image of 127 layers, which is what overlay stacks
// and Docker allows, with everything in them that a layer can say.
func TestManyLayers(t *testing.T) {
	b := newBench(t)
	layers := [][]testenv.File{
		{
			{Path: "d/", Mode: 0o755},
			{Path: "d/gone", Mode: 0o644},
			{Path: "d/kept", Mode: 0o644, Body: []byte("kept\n")},
			{Path: "d/hard", Hard: "d/kept", Mode: 0o644},
			{Path: "opaque/", Mode: 0o755},
			{Path: "opaque/below", Mode: 0o644},
			{Path: "null", Char: [2]int64{1, 3}, Mode: 0o666},
			{Path: "ping", Mode: 0o755, Xattrs: map[string]string{"user.note": "seen"}},
		},
		{}, // an empty one
		{
			{Path: "d/.wh.gone", Mode: 0o644},
			{Path: "opaque/", Mode: 0o755},
			{Path: "opaque/.wh..wh..opq", Mode: 0o644},
			{Path: "opaque/above", Mode: 0o644},
		},
	}
	for len(layers) < 126 { // testapp's is the first
		layers = append(layers, []testenv.File{{Path: "top", Mode: 0o644, Body: fmt.Appendf(nil, "layer %d\n", len(layers))}})
	}
	image := b.load("example.org/layers:1", testenv.Image(t, testenv.ImageSpec{Layers: layers, Config: v1.Config{Entrypoint: []string{"/testapp"}}}))
	r := request(image, 1, "serve", "8080")
	r.Container.Mounts = []spec.Mount{volumeAt("p_d", "/d")} // copied up through all layers
	b.run(r)
	root := func(path string) string { return fmt.Sprintf("/proc/%d/root%s", b.instance(r.ID).Pid, path) }
	for _, c := range []struct{ path, want string }{
		{"/d", "drwxr-xr-x 0 0 /d\n-rw-r--r-- 0 0 /d/hard\n-rw-r--r-- 0 0 /d/kept\n"},
		{"/opaque", "drwxr-xr-x 0 0 /opaque\n-rw-r--r-- 0 0 /opaque/above\n"},
		{"/null", "Dcrw-rw-rw- 0 0 /null\n"},
	} {
		if code, out, errs := b.exec(r.ID, "", "/testapp", "ls", c.path); code != 0 || out != c.want {
			t.Errorf("%s: code %d\n%s%s", c.path, code, out, errs)
		}
	}
	if _, out, _ := b.exec(r.ID, "", "/testapp", "cat", "/top", "/d/hard"); out != "layer 125\nkept\n" {
		t.Errorf("the files say %q", out)
	}
	if got, err := xattr(root("/ping"), "user.note"); err != nil || got != "seen" {
		t.Errorf("extended attribute: %q, %v", got, err)
	}
}

// TestWorkingDirs: it is made where it is missing, and a relative one starts
// at the root.
func TestWorkingDirs(t *testing.T) {
	b := newBench(t)
	files := []testenv.File{{Path: "real/", Mode: 0o755}, {Path: "real/f", Mode: 0o644, Body: []byte("found\n")}, {Path: "link", Link: "/real"}}
	for i, dir := range []string{"/real", "/link", "real", "real/../link/.", "/missing/../real"} {
		image := b.load(fmt.Sprintf("example.org/dir:%d", i), testenv.Image(t, testenv.ImageSpec{
			Layers: [][]testenv.File{files}, Config: v1.Config{Entrypoint: []string{"/testapp"}, WorkingDir: dir},
		}))
		if out := b.output(request(image, 1, "cat", "f")); out != "found\n" {
			t.Errorf("%s: %s", dir, out)
		}
	}
	r := request(b.app(), 1, "write", "made", "x")
	r.Container.WorkingDir = "/not/there/yet"
	if out := b.output(r); out != "" {
		t.Error(out)
	}
}

// TestDamagedImage: an image whose manifest the disk has lost isn't taken for a
// stored one. Removed and loaded again, it is whole.
func TestDamagedImage(t *testing.T) {
	b := newBench(t)
	image := b.app()
	stored, err := b.client.ImageService().Get(b.ctx, image.Ref)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(b.daemon.Dir, "root/io.containerd.content.v1.content/blobs/sha256", stored.Target.Digest.Encoded())
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(path, 0o600), os.WriteFile(path, make([]byte, stored.Target.Size), 0o600)); err != nil {
		t.Fatal(err)
	}
	if p, err := b.Resolve(b.ctx, image.Ref); err == nil {
		t.Errorf("damaged, but found: %+v", p)
	}
	if list, err := b.ListImages(b.ctx); err != nil || len(list) != 1 {
		t.Errorf("listed, so that it can be removed: %v, %v", list, err)
	}
	if err := b.RemoveImage(b.ctx, image.Ref); err != nil {
		t.Fatal(err)
	}
	if again := b.app(); again != image {
		t.Errorf("loaded again: %+v", again)
	}
	b.run(request(image, 1, "serve", "8080"))
}
