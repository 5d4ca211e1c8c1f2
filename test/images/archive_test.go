package images

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func sample(t *testing.T, ref, content string) Image {
	t.Helper()
	l, err := Files(File{Path: "etc/app/config", Mode: 0o640, Content: []byte(content)}, File{Path: "etc/app/link", Link: "config"})
	if err != nil {
		t.Fatal(err)
	}
	return Image{Ref: ref, Layers: []v1.Layer{l}, Config: v1.Config{Entrypoint: []string{"/app"}}}
}

// archived writes the images and reads the archive back.
func archived(t *testing.T, images ...Image) map[string][]byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.tar")
	if err := Write(path, images...); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[h.Name] != nil {
			t.Errorf("%s is there twice", h.Name)
		}
		if files[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

func TestArchive(t *testing.T) {
	shared := sample(t, "example.org/a:1", "same")
	other := shared
	other.Ref, other.Config = "example.org/b:1", v1.Config{Entrypoint: []string{"/other"}}
	files := archived(t, shared, other)
	for name, content := range files {
		if digest, ok := strings.CutPrefix(name, "blobs/sha256/"); ok {
			if sum := sha256.Sum256(content); hex.EncodeToString(sum[:]) != digest {
				t.Errorf("%s holds something else", name)
			}
		}
	}
	var index v1.IndexManifest
	if err := json.Unmarshal(files["index.json"], &index); err != nil {
		t.Fatal(err)
	}
	if len(index.Manifests) != 2 || index.Manifests[0].Annotations[annotationName] != "example.org/a:1" {
		t.Errorf("index: %s", files["index.json"])
	}
	var docker []dockerManifest
	if err := json.Unmarshal(files["manifest.json"], &docker); err != nil {
		t.Fatal(err)
	}
	for _, m := range docker {
		for _, name := range append(m.Layers, m.Config) {
			if files[name] == nil {
				t.Errorf("manifest.json names %s, which isn't there", name)
			}
		}
	}
}

// Redeploys compare digests: the same content must not look like a new version.
func TestSameContentSameDigest(t *testing.T) {
	a, b := archived(t, sample(t, "example.org/a:1", "x")), archived(t, sample(t, "example.org/a:1", "x"))
	if !bytes.Equal(a["index.json"], b["index.json"]) {
		t.Errorf("%s\n%s", a["index.json"], b["index.json"])
	}
	if c := archived(t, sample(t, "example.org/a:1", "y")); bytes.Equal(a["index.json"], c["index.json"]) {
		t.Error("other content, same digest")
	}
}
