package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"dunnage/spec"
)

// mostManifest bounds what is read of a manifest; registries accept 4 MiB.
const mostManifest = 4 << 20

// How much larger a layer is on disk than in the registry, at most as a rule:
// system images grow 2.2 to 2.9 times out of gzip. What files that compress
// better take beyond it, a pull finds out.
const (
	growsFromGzip = 3
	growsFromZstd = 3.5
)

// unpacked reckons what the layer takes once it is unpacked.
func unpacked(d ocispec.Descriptor) int64 {
	switch {
	case !images.IsLayerType(d.MediaType):
		return 0
	case strings.HasSuffix(d.MediaType, "zstd"):
		return int64(growsFromZstd * float64(d.Size))
	case strings.HasSuffix(d.MediaType, "gzip"):
		return growsFromGzip * d.Size
	default:
		return d.Size
	}
}

// Missing lists what a Pull of ref would download: the layers and the
// configuration, as the registry's manifest lists them, that aren't stored. It
// stores nothing.
func (e *Engine) Missing(ctx context.Context, ref string) ([]spec.MissingBlob, error) {
	name, dgst, err := canonical(ref)
	if err != nil {
		return nil, err
	}
	if dgst != "" {
		name = trimTag(name) + "@" + dgst.String()
	}
	registry, err := e.registry(ctx, nil)
	if err != nil {
		return nil, err
	}
	resolved, desc, err := registry.Resolve(ctx, name)
	if err != nil {
		return nil, e.wrap(ctx, err, "ask the registry for %s", ref)
	}
	fetcher, err := registry.Fetcher(ctx, resolved)
	if err != nil {
		return nil, e.wrap(ctx, err, "ask the registry for %s", ref)
	}
	m, err := e.manifest(ctx, fetcher, desc)
	if err != nil {
		return nil, e.wrap(ctx, err, "read the manifest of %s", ref)
	}
	var blobs []spec.MissingBlob
	for _, d := range append(m.Layers, m.Config) {
		blobs = append(blobs, spec.MissingBlob{Digest: d.Digest.String(), Size: d.Size, Unpacked: unpacked(d)})
	}
	return e.notStored(ctx, blobs)
}

// notStored are those of the blobs that the content store doesn't have.
func (e *Engine) notStored(ctx context.Context, blobs []spec.MissingBlob) (out []spec.MissingBlob, err error) {
	for _, b := range blobs {
		switch _, err := e.client.ContentStore().Info(ctx, digest.Digest(b.Digest)); {
		case errdefs.IsNotFound(err):
			out = append(out, b)
		case err != nil:
			return nil, e.wrap(ctx, err, "look for layer %s", b.Digest)
		}
	}
	return out, nil
}

// manifest fetches that of this host's platform.
func (e *Engine) manifest(ctx context.Context, f remotes.Fetcher, desc ocispec.Descriptor) (m ocispec.Manifest, err error) {
	if images.IsIndexType(desc.MediaType) {
		var index ocispec.Index
		if err := fetchJSON(ctx, f, desc, &index); err != nil {
			return m, err
		}
		best := -1
		order := platforms.Default()
		for i, d := range index.Manifests {
			if d.Platform != nil && order.Match(*d.Platform) && (best < 0 || order.Less(*d.Platform, *index.Manifests[best].Platform)) {
				best = i
			}
		}
		if best < 0 {
			return m, errNoPlatform
		}
		desc = index.Manifests[best]
	}
	err = fetchJSON(ctx, f, desc, &m)
	return m, err
}

func fetchJSON(ctx context.Context, f remotes.Fetcher, desc ocispec.Descriptor, v any) error {
	r, err := f.Fetch(ctx, desc)
	if err != nil {
		return err
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, mostManifest))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("manifest %s: %w", desc.Digest, err)
	}
	return nil
}
