// Package images builds the images of the examples and tests without a registry
// and without another container engine: static Go programs, and root file systems
// made of Debian packages, written as archives that containerd, Docker and podman
// all load.
package images

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Image is an image to be.
type Image struct {
	Ref    string // full reference with tag, for example example.org/hello:v1
	Config v1.Config
	Layers []v1.Layer // lowest first
}

// build assembles i. Equal content gives an equal digest: there is no time in it.
func (i Image) build() (v1.Image, error) {
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err := mutate.AppendLayers(img, i.Layers...)
	if err != nil {
		return nil, fmt.Errorf("append layers to %s: %w", i.Ref, err)
	}
	img, err = mutate.ConfigFile(img, i.configFile(img))
	if err != nil {
		return nil, fmt.Errorf("configure %s: %w", i.Ref, err)
	}
	return img, nil
}

func (i Image) configFile(img v1.Image) *v1.ConfigFile {
	cf, err := img.ConfigFile()
	if err != nil { // it was made in memory a moment ago
		panic(fmt.Sprintf("read own config of %s: %v", i.Ref, err))
	}
	cf = cf.DeepCopy()
	cf.Architecture, cf.OS = arch(), "linux"
	cf.Config = i.Config
	return cf
}

// File is one file of a layer.
type File struct {
	Path    string // without a leading slash
	Mode    int64
	Content []byte
	Link    string // target, for a symbolic link
}

// Files makes a layer of files, with the directories above them.
func Files(files ...File) (v1.Layer, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	made := map[string]bool{}
	for _, f := range files {
		if err := addParents(w, made, f.Path); err != nil {
			return nil, err
		}
		h := &tar.Header{Name: f.Path, Mode: f.Mode, Size: int64(len(f.Content)), ModTime: time.Unix(0, 0), Typeflag: tar.TypeReg}
		if f.Link != "" {
			h.Typeflag, h.Linkname = tar.TypeSymlink, f.Link
		}
		if err := addFile(w, h, f.Content); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("end layer: %w", err)
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(buf.Bytes())), nil
	}, tarball.WithMediaType(types.OCILayer))
}

func addParents(w *tar.Writer, made map[string]bool, path string) error {
	for i, r := range path {
		if r != '/' || made[path[:i]] {
			continue
		}
		made[path[:i]] = true
		h := &tar.Header{Name: path[:i] + "/", Mode: 0o755, ModTime: time.Unix(0, 0), Typeflag: tar.TypeDir}
		if err := addFile(w, h, nil); err != nil {
			return err
		}
	}
	return nil
}

func addFile(w *tar.Writer, h *tar.Header, content []byte) error {
	if err := w.WriteHeader(h); err != nil {
		return fmt.Errorf("add %s: %w", h.Name, err)
	}
	if _, err := w.Write(content); err != nil {
		return fmt.Errorf("add %s: %w", h.Name, err)
	}
	return nil
}

// annotationName is where containerd's import looks for an image's name.
const annotationName = "io.containerd.image.name"

// Write writes the images as one archive: an OCI layout, with the manifest.json
// that Docker wants beside it. Blobs that images share are written once.
func Write(path string, images ...Image) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make folder for %s: %w", path, err)
	}
	tmp := path + ".tmp"
	f, err := os.Create(tmp)
	if err != nil {
		return fmt.Errorf("create archive: %w", err)
	}
	defer os.Remove(tmp) // gone after the rename
	if err := errors.Join(write(f, images), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(tmp, path)
}

func write(f io.Writer, images []Image) error {
	a := &archive{w: tar.NewWriter(f), written: map[string]bool{}}
	var index v1.IndexManifest
	index.SchemaVersion, index.MediaType = 2, types.OCIImageIndex
	var docker []dockerManifest
	for _, i := range images {
		img, err := i.build()
		if err != nil {
			return err
		}
		desc, dm, err := a.image(i.Ref, img)
		if err != nil {
			return err
		}
		index.Manifests = append(index.Manifests, desc)
		docker = append(docker, dm)
	}
	return errors.Join(
		a.add("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)),
		a.json("index.json", index),
		a.json("manifest.json", docker),
		a.w.Close())
}

// dockerManifest is an entry of the manifest.json of `docker save`.
type dockerManifest struct {
	Config   string
	RepoTags []string
	Layers   []string
}

type archive struct {
	w       *tar.Writer
	written map[string]bool
}

// image writes all blobs of img.
func (a *archive) image(ref string, img v1.Image) (v1.Descriptor, dockerManifest, error) {
	dm := dockerManifest{RepoTags: []string{ref}}
	layers, err := img.Layers()
	if err != nil {
		return v1.Descriptor{}, dm, err
	}
	for _, l := range layers {
		name, err := a.layer(l)
		if err != nil {
			return v1.Descriptor{}, dm, err
		}
		dm.Layers = append(dm.Layers, name)
	}
	config, err1 := img.RawConfigFile()
	manifest, err2 := img.RawManifest()
	configName, err3 := img.ConfigName()
	digest, err4 := img.Digest()
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return v1.Descriptor{}, dm, err
	}
	dm.Config = blob(configName)
	desc := v1.Descriptor{
		MediaType:   types.OCIManifestSchema1,
		Digest:      digest,
		Size:        int64(len(manifest)),
		Platform:    &v1.Platform{Architecture: arch(), OS: "linux"},
		Annotations: map[string]string{annotationName: ref, "org.opencontainers.image.ref.name": ref},
	}
	return desc, dm, errors.Join(a.add(blob(configName), config), a.add(blob(digest), manifest))
}

func (a *archive) layer(l v1.Layer) (string, error) {
	digest, err1 := l.Digest()
	size, err2 := l.Size()
	if err := errors.Join(err1, err2); err != nil {
		return "", err
	}
	name := blob(digest)
	if a.written[name] {
		return name, nil
	}
	a.written[name] = true
	r, err := l.Compressed()
	if err != nil {
		return "", err
	}
	defer r.Close()
	if err := a.w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: size, ModTime: time.Unix(0, 0)}); err != nil {
		return "", err
	}
	_, err = io.Copy(a.w, r)
	return name, err
}

// add writes a small file, once.
func (a *archive) add(name string, content []byte) error {
	if a.written[name] {
		return nil
	}
	a.written[name] = true
	return addFile(a.w, &tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), ModTime: time.Unix(0, 0)}, content)
}

func (a *archive) json(name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	return a.add(name, b)
}

func blob(h v1.Hash) string { return strings.Join([]string{"blobs", h.Algorithm, h.Hex}, "/") }
