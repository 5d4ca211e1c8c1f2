package engine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"dunnage/internal/testenv"
	"dunnage/spec"
)

// rebooted opens an engine as the agent does after a power cut: the kernel's
// boot id is another one.
func (b *bench) rebooted() {
	b.t.Helper()
	_ = b.Close()
	path := filepath.Join(b.cfg.StateDir, "images.recent")
	text, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, []byte(strings.ReplaceAll(string(text), b.started.boot, "earlier")), 0o600)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	b.connect()
}

// layers are the directories of an unpacked image, the lowest first.
func (b *bench) layers(image spec.PinnedImage) []string {
	b.t.Helper()
	s, err := b.storedByDigest(b.ctx, image.Digest)
	if err != nil {
		b.t.Fatal(err)
	}
	dirs, err := b.layerDirs(b.ctx, s)
	if err != nil {
		b.t.Fatal(err)
	}
	return dirs
}

// blob is the file of an image's layer n in the content store.
func (b *bench) blob(image spec.PinnedImage, n int) string {
	b.t.Helper()
	s, err := b.storedByDigest(b.ctx, image.Digest)
	if err != nil {
		b.t.Fatal(err)
	}
	found, err := filepath.Glob(filepath.Join(b.daemon.Dir, "root", "io.containerd.content.v1.content", "blobs", "sha256", s.manifest.Layers[n].Digest.Encoded()))
	if err != nil || len(found) != 1 {
		b.t.Fatalf("blob of layer %d: %v, %v", n, found, err)
	}
	return found[0]
}

func (b *bench) verify(image spec.PinnedImage) []string {
	b.t.Helper()
	mended, err := b.Verify(b.ctx, image.Digest)
	if err != nil {
		b.t.Fatal(err)
	}
	if left := b.Doubtful(); len(left) > 0 {
		b.t.Errorf("still in doubt: %+v", left)
	}
	return mended
}

// doubted is an image with everything that a layer can say.
func doubted(t *testing.T, version string) v1.Image {
	return testenv.Image(t, testenv.ImageSpec{
		Layers: [][]testenv.File{
			{
				{Path: "d/", Mode: 0o755},
				{Path: "d/gone", Mode: 0o644},
				{Path: "d/kept", Mode: 0o640, UID: 7, GID: 8, Body: []byte("kept\n")},
				{Path: "d/hard", Hard: "d/kept", Mode: 0o640, UID: 7, GID: 8},
				{Path: "link", Link: "/d"},
				{Path: "opaque/", Mode: 0o1777},
				{Path: "opaque/below", Mode: 0o644},
				{Path: "null", Char: [2]int64{1, 3}, Mode: 0o666},
				{Path: "twice", Mode: 0o644, Body: []byte("first")},
				{Path: "twice", Mode: 0o600, Body: []byte("second")},
			},
			{
				{Path: "d/.wh.gone", Mode: 0o644},
				{Path: "link/through", Mode: 0o644, Body: []byte("a directory where a link was")},
				{Path: "opaque/", Mode: 0o755},
				{Path: "opaque/.wh..wh..opq", Mode: 0o644},
				{Path: "version", Mode: 0o644, Body: []byte(version + "\n")},
			},
		},
		Config: v1.Config{Entrypoint: []string{"/testapp"}},
	})
}

// An image that was unpacked before the power was cut is given to nobody before
// it has been compared with its layers, and is mended where it differs. An
// earlier one isn't looked at.
func TestVerifyMendsLayers(t *testing.T) {
	b := newBench(t)
	b.load("example.org/earlier:1", testenv.AppImage(t, "1"))
	if err := b.Settle(b.ctx); err != nil {
		t.Fatal(err)
	}
	image := b.load("example.org/doubted:1", doubted(t, "1"))
	r := request(image, 1, "cat", "/version", "/d/hard")
	b.create(r) // a writable layer stands on it
	b.rebooted()
	if got := b.Doubtful(); len(got) != 1 || got[0] != (spec.DoubtfulImage{Ref: image.Ref, Digest: image.Digest}) {
		t.Fatalf("in doubt: %+v", got)
	}
	if _, err := b.Resolve(b.ctx, image.Ref); !errors.Is(err, spec.ErrUnavailable) {
		t.Errorf("Resolve: %v", err)
	}
	if mended := b.verify(image); len(mended) > 0 {
		t.Errorf("a whole image was mended: %q", mended)
	}
	for _, c := range []struct {
		name   string
		layer  int
		damage func(dir string) error
		want   string
	}{
		{"empty", 0, func(d string) error { return os.Truncate(d+"/testapp", 0) }, "/testapp has 0 bytes instead of"},
		{"missing", 1, func(d string) error { return os.RemoveAll(d + "/d") }, "/d is missing, and 3 more"},
		{"zeros", 1, func(d string) error { return os.WriteFile(d+"/d/kept", make([]byte, 5), 0) }, "/d/kept has other content"},
		{"owner", 1, func(d string) error { return os.Chown(d+"/d/kept", 0, 0) }, "/d/kept has another owner"},
		{"mode", 1, func(d string) error { return os.Chmod(d+"/opaque", 0o700) }, "/opaque has other permissions"},
		{"link", 1, func(d string) error { return errors.Join(os.Remove(d+"/link"), os.Symlink("/", d+"/link")) }, "/link leads elsewhere"},
		{"hard link", 1, func(d string) error {
			return errors.Join(os.Remove(d+"/d/hard"), os.WriteFile(d+"/d/hard", []byte("kept\n"), 0o640), os.Chown(d+"/d/hard", 7, 8))
		}, "/d/hard is a link to something else"},
		{"device", 1, func(d string) error { return errors.Join(os.Remove(d+"/null"), os.WriteFile(d+"/null", nil, 0o666)) }, "/null is something else"},
		{"whiteout", 2, func(d string) error { return os.Remove(d + "/d/gone") }, "/d/gone is missing"},
		{"all", 1, os.RemoveAll, "its directory is missing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := b.noteRecent(b.ctx, image.Digest, image.Ref); err != nil {
				t.Fatal(err)
			}
			if err := c.damage(b.layers(image)[c.layer]); err != nil {
				t.Fatal(err)
			}
			b.rebooted()
			mended := b.verify(image)
			if len(mended) != 1 || !strings.Contains(mended[0], c.want) {
				t.Errorf("mended %q, want %q", mended, c.want)
			}
			if err := b.noteRecent(b.ctx, image.Digest, image.Ref); err != nil {
				t.Fatal(err)
			}
			b.rebooted()
			if mended := b.verify(image); len(mended) > 0 {
				t.Errorf("and again: %q", mended)
			}
		})
	}
	if out := b.output(r); out != "1\nkept\n" {
		t.Errorf("it says %q", out)
	}
}

// Where the notes of what came lately are garbage, every image is in doubt, the
// one included whose name means another by now, until it has been compared.
func TestVerifyWithoutNotes(t *testing.T) {
	b := newBench(t)
	const ref = "example.org/doubted:1"
	earlier := b.load(ref, doubted(t, "1"))
	if err := b.Retain(b.ctx, "release 1", []spec.PinnedImage{earlier}); err != nil {
		t.Fatal(err)
	}
	image := b.load(ref, doubted(t, "2"))
	path := filepath.Join(b.cfg.StateDir, "images.recent")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"empty": "", "cut off": string(whole[:len(whole)/2]), "zeros": string(make([]byte, 4096)), "null": "null",
		"other JSON": "[1]", "no digests": `{"x":{"ref":"y","boot":"z"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.Truncate(b.layers(image)[2]+"/version", 0); err != nil {
				t.Fatal(err)
			}
			_ = b.Close()
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			b.connect()
			if got := b.Doubtful(); len(got) != 1 || got[0] != (spec.DoubtfulImage{}) {
				t.Errorf("in doubt: %+v", got)
			}
			if _, err := b.Resolve(b.ctx, ref); !errors.Is(err, spec.ErrUnavailable) {
				t.Errorf("Resolve: %v", err)
			}
			if kept, err := os.ReadFile(path); err != nil || string(kept) != text {
				t.Errorf("the notes were replaced before the doubts were listed: %q, %v", kept, err)
			}
			if _, err := b.Verify(b.ctx, ""); err != nil {
				t.Fatal(err)
			}
			_ = b.Close() // a crash doesn't end a doubt
			b.connect()
			if got := b.Doubtful(); len(got) != 2 {
				t.Errorf("in doubt: %+v", got)
			}
			if mended, err := b.Verify(b.ctx, earlier.Digest); err != nil || len(mended) > 0 {
				t.Errorf("the earlier image: %q, %v", mended, err)
			}
			if mended := b.verify(image); len(mended) != 1 || !strings.Contains(mended[0], "/version has 0 bytes instead of") {
				t.Errorf("mended %q", mended)
			}
		})
	}
}

// A directory in the place of the notes is moved aside once the doubts can be
// noted, and not before: then the next start has none.
func TestVerifyWithDirectoryForNotes(t *testing.T) {
	b := newBench(t)
	image := b.load("example.org/doubted:1", doubted(t, "1"))
	_ = b.Close()
	path := filepath.Join(b.cfg.StateDir, "images.recent")
	if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o700), os.WriteFile(filepath.Join(path, "theirs"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	b.connect()
	if _, err := os.Stat(filepath.Join(path, "theirs")); err != nil {
		t.Errorf("it was moved before the doubts were listed: %v", err)
	}
	mended, err := b.Verify(b.ctx, "")
	moved, globErr := filepath.Glob(path + ".aside-*/theirs")
	if err != nil || globErr != nil || len(moved) != 1 {
		t.Fatalf("%q, %v; moved %q, %v", mended, err, moved, globErr)
	}
	if want := path + " was a directory, and is moved to " + filepath.Dir(moved[0]) + "; "; len(mended) != 1 || !strings.HasPrefix(mended[0], want) {
		t.Errorf("mended %q, want %q", mended, want)
	}
	if got := b.Doubtful(); len(got) != 1 || got[0].Digest != image.Digest {
		t.Errorf("in doubt: %+v", got)
	}
	b.verify(image)
	_ = b.Close()
	b.connect()
	if got := b.Doubtful(); len(got) > 0 {
		t.Errorf("in doubt at the next start: %+v", got)
	}
}

// A layer whose archive is damaged too can't be mended without the registry;
// an archive of the image does as well.
func TestVerifyWithoutRegistry(t *testing.T) {
	b := newBench(t)
	const ref = "127.0.0.1:1/doubted:1" // nobody listens there
	image := b.load(ref, doubted(t, "1"))
	dir := b.layers(image)[2]
	blob := b.blob(image, 2)
	if err := errors.Join(os.Truncate(dir+"/version", 0), os.Chmod(blob, 0o644), os.Truncate(blob, 10)); err != nil {
		t.Fatal(err)
	}
	b.rebooted()
	_, err := b.Verify(b.ctx, image.Digest)
	if !errors.Is(err, spec.ErrNotFound) || !strings.Contains(fmt.Sprint(err), "is damaged since the power was cut, and it can't be fetched") {
		t.Fatalf("Verify: %v", err)
	}
	if got := b.Doubtful(); len(got) != 1 || got[0].Error == "" {
		t.Errorf("in doubt: %+v", got)
	}
	if _, err := b.Resolve(b.ctx, ref); !errors.Is(err, spec.ErrNotFound) {
		t.Errorf("Resolve: %v", err)
	}
	layers, err := ArchiveLayers(b.ctx, archiveOf(t, doubted(t, "1")))
	if err != nil || len(layers) == 0 {
		t.Fatalf("layers: %v, %v", layers, err)
	}
	if got, err := b.NewLayers(b.ctx, layers); err != nil || len(got) > 0 { // else the mending could be refused for want of room
		t.Errorf("new layers of a damaged image: %+v, %v", got, err)
	}
	b.load(ref, doubted(t, "1"))
	if got := b.Doubtful(); len(got) != 0 {
		t.Errorf("in doubt after it was loaded again: %+v", got)
	}
	if out := b.output(request(image, 1, "cat", "/version")); out != "1\n" {
		t.Errorf("it says %q", out)
	}
}
