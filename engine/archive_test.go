package engine

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/opencontainers/go-digest"

	"dunnage/internal/testenv"
	"dunnage/spec"
)

// The layers of an archive are listed by what they are, whichever tool has named
// them, and whoever loads it afterwards finds it at its beginning.
func TestArchiveLayers(t *testing.T) {
	img := large(t, 1<<20)
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	reader, err := layers[0].Compressed()
	if err != nil {
		t.Fatal(err)
	}
	inGzip, err := io.ReadAll(reader)
	if err != nil {
		t.Fatal(err)
	}
	saved, err := io.ReadAll(testenv.Archive(t, map[string]v1.Image{"a:1": img}))
	if err != nil {
		t.Fatal(err)
	}
	plain := string(tarOf(t, "f", strings.Repeat("x", 5000)))
	zstd := "\x28\xb5\x2f\xfd" + strings.Repeat("z", 996)
	blob := func(content string, unpacked int64) spec.MissingBlob {
		return spec.MissingBlob{Digest: digest.FromString(content).String(), Size: int64(len(content)), Unpacked: unpacked}
	}
	whole := blob(string(inGzip), 3*int64(len(inGzip)))
	hex := digest.FromString(plain).Encoded()
	for name, tc := range map[string]struct {
		archive []byte
		want    []spec.MissingBlob
	}{
		"docker-archive":           {saved, []spec.MissingBlob{whole}},
		"docker-archive with gzip": {zipped(t, saved), []spec.MissingBlob{whole}},
		"OCI layout": {tarOf(t, "./oci-layout", "{}", "./blobs/sha256/"+hex, plain, "./blobs/sha256/"+digest.FromString(zstd).Encoded(), zstd, "./index.json", "{}"),
			[]spec.MissingBlob{blob(plain, int64(len(plain))), blob(zstd, 3500)}},
		"skopeo's docker-archive": {tarOf(t, hex+".tar", plain, "manifest.json", "[]"), []spec.MissingBlob{blob(plain, int64(len(plain)))}},
		"an older docker save":    {tarOf(t, strings.Repeat("ab", 32)+"/layer.tar", plain, "manifest.json", "[]"), []spec.MissingBlob{blob(plain, int64(len(plain)))}},
		"nothing but small files": {tarOf(t, "empty", "", "notes.txt", "hello"), nil},
	} {
		t.Run(name, func(t *testing.T) {
			r := bytes.NewReader(append([]byte("before"), tc.archive...))
			if _, err := r.Seek(6, io.SeekStart); err != nil {
				t.Fatal(err)
			}
			got, err := ArchiveLayers(t.Context(), r)
			if err != nil || !slices.Equal(got, tc.want) {
				t.Errorf("%v, %+v, want %+v", err, got, tc.want)
			}
			if r.Len() != len(tc.archive) {
				t.Errorf("%d bytes are left of %d", r.Len(), len(tc.archive))
			}
		})
	}
	for name, archive := range map[string][]byte{"text": []byte(strings.Repeat("no archive ", 100)), "gzip of text": zipped(t, []byte("text")), "no gzip": []byte("\x1f\x8bnot at all"), "cut off": saved[:len(saved)/2]} {
		if got, err := ArchiveLayers(t.Context(), bytes.NewReader(archive)); !errors.Is(err, spec.ErrRefused) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := ArchiveLayers(ended, bytes.NewReader(saved)); !errors.Is(err, context.Canceled) {
		t.Errorf("after its end: %v", err)
	}
}

// What of an archive is stored isn't new, what isn't is.
func TestNewLayers(t *testing.T) {
	b := newBench(t)
	list := func(img v1.Image) []spec.MissingBlob {
		t.Helper()
		layers, err := ArchiveLayers(t.Context(), archiveOf(t, img))
		if err != nil || len(layers) == 0 {
			t.Fatalf("%v, %v", layers, err)
		}
		return layers
	}
	stored, other := large(t, 1<<20), large(t, 1<<20)
	b.load("example.org/stored:1", stored)
	want := list(other)
	if got, err := b.NewLayers(b.ctx, append(list(stored), want...)); err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %+v, want %+v", err, got, want)
	}
}

// archiveOf is an archive of the image that can be read twice.
func archiveOf(t *testing.T, img v1.Image) *bytes.Reader {
	t.Helper()
	all, err := io.ReadAll(testenv.Archive(t, map[string]v1.Image{"a:1": img}))
	if err != nil {
		t.Fatal(err)
	}
	return bytes.NewReader(all)
}
