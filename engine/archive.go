package engine

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"dunnage/spec"
)

// ArchiveLayers lists the layers in an archive as Load takes it, and leaves the
// archive where it was. It asks nobody, and seeks over what it needn't read: a
// plain archive is listed at once, one with gzip only after all of it has been
// decompressed. Manifests and configurations, some kilobytes, aren't listed.
func ArchiveLayers(ctx context.Context, archive io.ReadSeeker) (layers []spec.MissingBlob, err error) {
	at, err := archive.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil, fmt.Errorf("read the archive: %w", err)
	}
	defer func() {
		if _, back := archive.Seek(at, io.SeekStart); back != nil {
			err = errors.Join(err, fmt.Errorf("read the archive: %w", back))
		}
	}()
	magic := make([]byte, len(gzipMagic))
	n, _ := io.ReadFull(archive, magic) // one that is too short is told of by tar
	if _, err := archive.Seek(int64(-n), io.SeekCurrent); err != nil {
		return nil, fmt.Errorf("read the archive: %w", err)
	}
	var plain io.Reader = cancellable{ctx, archive}
	if string(magic) == gzipMagic {
		if plain, err = gzip.NewReader(plain); err != nil {
			return nil, badArchive(err)
		}
	}
	files := tar.NewReader(plain)
	for {
		h, err := files.Next()
		if errors.Is(err, io.EOF) {
			return layers, nil
		}
		if err != nil {
			return nil, badArchive(err)
		}
		layer, err := layerOf(h, files)
		if err != nil {
			return nil, badArchive(err)
		}
		if layer != nil {
			layers = append(layers, *layer)
		}
	}
}

// cancellable is a file whose reading ends with ctx.
type cancellable struct {
	ctx context.Context
	io.ReadSeeker
}

func (c cancellable) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.ReadSeeker.Read(p)
}

// digestName is the name of a blob in an archive by which its content is known:
// blobs/sha256/HEX, sha256:HEX, HEX.tar or HEX.tar.gz. The HEX of docker's older
// HEX/layer.tar is none of its content.
var digestName = regexp.MustCompile(`^(?:blobs/sha256/|sha256:)?([0-9a-f]{64})(?:\.tar(?:\.gz)?)?$`)

// layerOf is the archive's file as a layer, nil if it isn't one.
func layerOf(h *tar.Header, content io.Reader) (*spec.MissingBlob, error) {
	if h.Typeflag != tar.TypeReg {
		return nil, nil
	}
	head := make([]byte, min(h.Size, 512))
	if _, err := io.ReadFull(content, head); err != nil {
		return nil, err
	}
	d := ocispec.Descriptor{Size: h.Size}
	switch {
	case bytes.HasPrefix(head, []byte(gzipMagic)):
		d.MediaType = ocispec.MediaTypeImageLayerGzip
	case bytes.HasPrefix(head, []byte("\x28\xb5\x2f\xfd")):
		d.MediaType = ocispec.MediaTypeImageLayerZstd
	case len(head) == 512 && bytes.HasPrefix(head[257:], []byte("ustar")):
		d.MediaType = ocispec.MediaTypeImageLayer
	default:
		return nil, nil
	}
	if m := digestName.FindStringSubmatch(path.Clean(h.Name)); m != nil {
		d.Digest = digest.NewDigestFromEncoded(digest.SHA256, m[1])
	} else {
		var err error
		if d.Digest, err = digest.FromReader(io.MultiReader(bytes.NewReader(head), content)); err != nil {
			return nil, err
		}
	}
	return &spec.MissingBlob{Digest: d.Digest.String(), Size: d.Size, Unpacked: unpacked(d)}, nil
}

// NewLayers are those of an archive's layers that a Load of it adds to what there
// is: that aren't stored, nor a part of an image that a power cut may have damaged.
func (e *Engine) NewLayers(ctx context.Context, layers []spec.MissingBlob) ([]spec.MissingBlob, error) {
	mended := map[string]bool{}
	for _, d := range e.Doubtful() {
		if s, err := e.storedByDigest(ctx, d.Digest); err == nil { // else nothing is known of its layers
			for _, l := range s.manifest.Layers {
				mended[l.Digest.String()] = true
			}
		}
	}
	missing, err := e.notStored(ctx, layers)
	var out []spec.MissingBlob
	for _, l := range missing {
		if !mended[l.Digest] {
			out = append(out, l)
		}
	}
	return out, err
}
