package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// mostManifest bounds what is read of a manifest; registries accept 4 MiB.
const mostManifest = 4 << 20

// Missing is how many bytes a Pull of ref would download: the layers and the
// configuration, as the registry's manifest lists them, that aren't stored. It
// stores nothing.
func (e *Engine) Missing(ctx context.Context, ref string) (int64, error) {
	name, dgst, err := canonical(ref)
	if err != nil {
		return 0, err
	}
	if dgst != "" {
		name = trimTag(name) + "@" + dgst.String()
	}
	registry, err := e.registry(ctx)
	if err != nil {
		return 0, err
	}
	resolved, desc, err := registry.Resolve(ctx, name)
	if err != nil {
		return 0, e.wrap(ctx, err, "ask the registry for %s", ref)
	}
	fetcher, err := registry.Fetcher(ctx, resolved)
	if err != nil {
		return 0, e.wrap(ctx, err, "ask the registry for %s", ref)
	}
	m, err := e.manifest(ctx, fetcher, desc)
	if err != nil {
		return 0, e.wrap(ctx, err, "read the manifest of %s", ref)
	}
	var size int64
	for _, d := range append(m.Layers, m.Config) {
		switch _, err := e.client.ContentStore().Info(ctx, d.Digest); {
		case errdefs.IsNotFound(err):
			size += d.Size
		case err != nil:
			return 0, e.wrap(ctx, err, "look for layer %s", d.Digest)
		}
	}
	return size, nil
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
