package engine

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"dunnage/internal/testenv"
	"dunnage/spec"
)

// What is no archive of images is refused, says what was expected and leaves
// nothing behind.
func TestLoadGarbage(t *testing.T) {
	b := newBench(t)
	whole, err := io.ReadAll(testenv.Archive(t, map[string]v1.Image{appRef: testenv.AppImage(t, "1")}))
	if err != nil {
		t.Fatal(err)
	}
	for name, archive := range map[string][]byte{
		"nothing":                     nil,
		"text":                        []byte(strings.Repeat("no archive ", 1000)),
		"zeros":                       make([]byte, 1<<16),
		"gzip that is none":           []byte("\x1f\x8bnot at all"),
		"gzip of text":                zipped(t, []byte(strings.Repeat("no archive ", 1000))),
		"cut off":                     whole[:len(whole)/2],
		"gzip that is cut off":        zipped(t, whole)[:1000],
		"another tar":                 tarOf(t, "notes.txt", "hello"),
		"a manifest that is no JSON":  tarOf(t, "manifest.json", "hello"),
		"a layer that is missing":     tarOf(t, "config.json", "{}", "manifest.json", `[{"Config":"config.json","RepoTags":["a:1"],"Layers":["layer.tar"]}]`),
		"an OCI layout without index": tarOf(t, "oci-layout", `{"imageLayoutVersion":"1.0.0"}`),
		"an index that is no JSON":    tarOf(t, "oci-layout", `{"imageLayoutVersion":"1.0.0"}`, "index.json", "hello"),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := b.Load(b.ctx, bytes.NewReader(archive))
			if !errors.Is(err, spec.ErrRefused) || !strings.Contains(err.Error(), "expected a tar file as `docker save` (docker-archive) or skopeo (oci-archive)") {
				t.Errorf("got %v", err)
			}
		})
	}
	if list, err := b.ListImages(b.ctx); err != nil || len(list) > 0 {
		t.Errorf("images: %v, %v", list, err)
	}
	// containerd collects garbage soon after the load lets go of it.
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		left := b.blobs()
		if len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("left over: %v", left)
		}
	}

	images, err := b.Load(b.ctx, bytes.NewReader(zipped(t, whole)))
	if err != nil || !slices.ContainsFunc(images, func(i spec.Image) bool { return i.Ref == appRef }) {
		t.Errorf("a good archive with gzip: %v, %v", images, err)
	}
}

// blobs lists what the content store has, whole or in part.
func (b *bench) blobs() []string {
	b.t.Helper()
	store := b.client.ContentStore()
	half, err := store.ListStatuses(b.ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	var out []string
	for _, s := range half {
		out = append(out, s.Ref)
	}
	if err := store.Walk(b.ctx, func(i content.Info) error { out = append(out, i.Digest.String()); return nil }); err != nil {
		b.t.Fatal(err)
	}
	return out
}

func zipped(t *testing.T, plain []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write(plain)
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// tarOf packs files, each a name and a content.
func tarOf(t *testing.T, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for f := range slices.Chunk(files, 2) {
		err := w.WriteHeader(&tar.Header{Name: f[0], Mode: 0o644, Size: int64(len(f[1]))})
		if err == nil {
			_, err = io.WriteString(w, f[1])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// What the disk has damaged of an image is stored again by a load, also where only
// a release holds the image; the other images stay as they are.
func TestLoadDamaged(t *testing.T) {
	b := newBench(t)
	image, other := testenv.AppImage(t, "1"), b.load("example.org/other:1", testenv.AppImage(t, "2"))
	dir := t.TempDir()
	written, err := layout.Write(dir, empty.Index)
	if err == nil {
		err = written.AppendImage(image, layout.WithAnnotations(map[string]string{ocispec.AnnotationRefName: appRef}))
	}
	if err != nil {
		t.Fatal(err)
	}
	var oci bytes.Buffer
	w := tar.NewWriter(&oci)
	if err := errors.Join(w.AddFS(os.DirFS(dir)), w.Close()); err != nil {
		t.Fatal(err)
	}
	docker, err := io.ReadAll(testenv.Archive(t, map[string]v1.Image{appRef: image}))
	if err != nil {
		t.Fatal(err)
	}
	blob := func(d digest.Digest) string {
		return filepath.Join(b.daemon.Dir, "root/io.containerd.content.v1.content/blobs/sha256", d.Encoded())
	}
	spoiled, err := b.storedByDigest(b.ctx, other.Digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(blob(spoiled.manifest.Config.Digest), 0); err != nil {
		t.Fatal(err)
	}
	for form, archive := range map[string][]byte{"docker-archive": docker, "oci-archive": oci.Bytes()} {
		loaded, err := b.Load(b.ctx, bytes.NewReader(archive))
		if err != nil || len(loaded) != 1 {
			t.Fatalf("%s: %+v, %v", form, loaded, err)
		}
		pinned := spec.PinnedImage{Ref: loaded[0].Ref, Digest: loaded[0].Digest, Size: loaded[0].Size}
		if err := b.Retain(b.ctx, "p/1", []spec.PinnedImage{pinned}); err != nil {
			t.Fatal(err)
		}
		stored, err := b.storedByDigest(b.ctx, pinned.Digest)
		if err != nil {
			t.Fatal(err)
		}
		for _, desc := range []ocispec.Descriptor{stored.target, stored.manifest.Config} {
			whole, err := os.ReadFile(blob(desc.Digest))
			if err != nil {
				t.Fatal(err)
			}
			for name, damage := range map[string]func(string) error{
				"zeros":   func(path string) error { return os.WriteFile(path, make([]byte, len(whole)), 0o600) },
				"cut off": func(path string) error { return os.Truncate(path, 100) },
				"empty":   func(path string) error { return os.Truncate(path, 0) },
				"gone":    os.Remove,
			} {
				if err := damage(blob(desc.Digest)); err != nil {
					t.Fatal(err)
				}
				if name == "gone" { // the release holds it still
					if err := b.forget(b.ctx, pinned.Ref); err != nil {
						t.Fatal(err)
					}
				}
				if _, err := b.Load(b.ctx, bytes.NewReader(archive)); err != nil {
					t.Fatalf("%s, %s %s: %v", form, desc.MediaType, name, err)
				}
				if now, err := os.ReadFile(blob(desc.Digest)); err != nil || !bytes.Equal(now, whole) {
					t.Fatalf("%s, %s %s: still damaged, %v", form, desc.MediaType, name, err)
				}
				if again, err := b.Resolve(b.ctx, pinned.Pinned()); err != nil || again != pinned {
					t.Fatalf("%s, %s %s: resolved %+v, %v", form, desc.MediaType, name, again, err)
				}
			}
		}
		b.run(request(pinned, 1, "serve", "8080"))
		if err := b.Remove(b.ctx, request(pinned, 1).ID); err != nil {
			t.Fatal(err)
		}
	}
	if named, err := b.Named(b.ctx, other.Ref); err != nil || named.Digest != other.Digest {
		t.Errorf("the other image is %+v, %v", named, err)
	}
	for _, d := range []digest.Digest{spoiled.target.Digest, spoiled.manifest.Config.Digest, spoiled.manifest.Layers[0].Digest} {
		if _, err := b.client.ContentStore().Info(b.ctx, d); err != nil {
			t.Errorf("of the other image: %v", err)
		}
	}
}

// Damage in the store isn't told as if the archive were at fault.
func TestLoadTellsDamageFromArchive(t *testing.T) {
	b := newBench(t)
	image := b.app()
	stored, err := b.storedByDigest(b.ctx, image.Digest)
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(b.daemon.Dir, "root/io.containerd.content.v1.content/blobs/sha256", stored.manifest.Config.Digest.Encoded())
	whole, err := os.ReadFile(config)
	if err == nil {
		err = os.Truncate(config, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	// Its files have no digest for a name: nothing tells what to drop.
	_, err = b.Load(b.ctx, bytes.NewReader(tarOf(t, "config.json", string(whole), "manifest.json", `[{"Config":"config.json","RepoTags":["a:1"],"Layers":[]}]`)))
	if err == nil || strings.Contains(err.Error(), "expected a tar file") || !strings.Contains(err.Error(), "is damaged in containerd's content store") {
		t.Errorf("got %v", err)
	}
}

// An archive of which one image can't be used changes no name.
func TestLoadAllOrNothing(t *testing.T) {
	b := newBench(t)
	before := b.app()
	other, err := mutate.ConfigFile(testenv.AppImage(t, "3"), &v1.ConfigFile{OS: "linux", Architecture: "s390x"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.Load(b.ctx, testenv.Archive(t, map[string]v1.Image{
		"example.org/a:1": testenv.AppImage(t, "2"), appRef: testenv.AppImage(t, "2"), "example.org/b:1": other, "example.org/c:1": testenv.AppImage(t, "4"),
	}))
	if !errors.Is(err, spec.ErrRefused) || !strings.Contains(err.Error(), "example.org/b:1") {
		t.Errorf("got %v", err)
	}
	if list, err := b.ListImages(b.ctx); err != nil || len(list) != 1 || list[0].Ref != appRef || list[0].Digest != before.Digest {
		t.Errorf("images are %+v (%v), want %s as before", list, err, before.Pinned())
	}
	if _, err := b.Resolve(b.ctx, appRef); err != nil {
		t.Error(err)
	}
}
