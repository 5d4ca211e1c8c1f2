package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"dunnage/spec"
)

// storedImage is what a digest in the content store means on this platform.
// It never changes for a digest.
type storedImage struct {
	target   ocispec.Descriptor // index or manifest: what the digest names
	manifest ocispec.Manifest
	config   ocispec.ImageConfig
	platform ocispec.Platform
	created  *time.Time
	chain    string      // name of the snapshot of all layers
	size     int64       // compressed bytes of manifest, config and layers
	health   *spec.Probe // its HEALTHCHECK
}

// storedByDigest reads an image out of the content store. It wraps
// spec.ErrNotFound when a part that a container needs is missing or damaged.
func (e *Engine) storedByDigest(ctx context.Context, dgst string) (*storedImage, error) {
	d, err := digest.Parse(dgst)
	if err != nil {
		return nil, fmt.Errorf("image digest %q: %w", dgst, err)
	}
	target, err := describe(ctx, e.client.ContentStore(), d)
	if err != nil {
		return nil, e.wrap(ctx, err, "find image %s", dgst)
	}
	s, err := e.stored(ctx, target)
	if err == nil {
		e.known.put(dgst, s)
	}
	return s, err
}

// stillThere looks again for an image that has just been read: what it names
// goes with it, its configuration and its unpacked layers last.
func (e *Engine) stillThere(ctx context.Context, dgst string) error {
	s, err := e.toRun(ctx, dgst)
	if err != nil {
		return err
	}
	for _, d := range []digest.Digest{s.target.Digest, s.manifest.Config.Digest} {
		if _, err := e.client.ContentStore().Info(ctx, d); err != nil {
			return e.wrap(ctx, err, "find blob %s", d)
		}
	}
	_, ok, err := e.unpacked(ctx, s)
	if err == nil && !ok {
		err = fmt.Errorf("its layers are being removed: %w", spec.ErrNotFound)
	}
	return err
}

// toRun is the image for a container. One that was read before isn't read
// again: if it has been removed since, its layers are missing, and the
// snapshot that the container needs can't be made.
func (e *Engine) toRun(ctx context.Context, dgst string) (*storedImage, error) {
	if s := e.known.get(dgst); s != nil {
		return s, nil
	}
	return e.storedByDigest(ctx, dgst)
}

// knownImages remembers what digests mean.
type knownImages struct {
	mu  sync.Mutex
	all map[string]*storedImage
}

// maxKnown bounds the memory to some hundred kilobytes.
const maxKnown = 256

func (k *knownImages) get(dgst string) *storedImage {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.all[dgst]
}

func (k *knownImages) put(dgst string, s *storedImage) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.all == nil || len(k.all) >= maxKnown {
		k.all = make(map[string]*storedImage)
	}
	k.all[dgst] = s
}

func (e *Engine) stored(ctx context.Context, target ocispec.Descriptor) (*storedImage, error) {
	store := checked{e.client.ContentStore()}
	manifest, err := images.Manifest(ctx, store, target, platforms.Default())
	if err != nil {
		return nil, e.wrap(ctx, err, "read manifest of image %s", target.Digest)
	}
	blob, err := content.ReadBlob(ctx, store, manifest.Config)
	if err != nil {
		return nil, e.wrap(ctx, err, "read configuration of image %s", target.Digest)
	}
	var config ocispec.Image
	if err := json.Unmarshal(blob, &config); err != nil {
		return nil, fmt.Errorf("read configuration of image %s: %w", target.Digest, err)
	}
	if err := checkPlatform(target.Digest.String(), config.Platform); err != nil {
		return nil, err
	}
	health, err := imageHealth(blob)
	if err != nil {
		return nil, fmt.Errorf("read HEALTHCHECK of image %s: %w", target.Digest, err)
	}
	s := &storedImage{
		health:   health,
		target:   target,
		manifest: manifest,
		config:   config.Config,
		platform: config.Platform,
		created:  config.Created,
		chain:    identity.ChainID(config.RootFS.DiffIDs).String(),
		size:     manifest.Config.Size,
	}
	for _, layer := range manifest.Layers {
		s.size += layer.Size
	}
	return s, nil
}

// describe finds out what kind of blob a digest is: the content store knows
// only sizes.
func describe(ctx context.Context, store content.Store, d digest.Digest) (ocispec.Descriptor, error) {
	info, err := store.Info(ctx, d)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc := ocispec.Descriptor{Digest: d, Size: info.Size}
	const largest = 8 << 20 // no manifest or index is larger: registries take 4 MiB
	if info.Size > largest {
		return desc, fmt.Errorf("blob %s is no image manifest: it has %d bytes", d, info.Size)
	}
	blob, err := content.ReadBlob(ctx, checked{store}, desc)
	if err != nil {
		return desc, err
	}
	desc.MediaType, err = mediaType(blob)
	return desc, err
}

// mediaType reads or, where the optional field is missing, infers the type.
func mediaType(blob []byte) (string, error) {
	var m struct {
		MediaType string            `json:"mediaType"`
		Manifests []json.RawMessage `json:"manifests"`
		Config    json.RawMessage   `json:"config"`
	}
	if err := json.Unmarshal(blob, &m); err != nil {
		return "", fmt.Errorf("read manifest: %w", err)
	}
	switch {
	case m.MediaType != "":
		return m.MediaType, nil
	case m.Manifests != nil:
		return ocispec.MediaTypeImageIndex, nil
	case m.Config != nil:
		return ocispec.MediaTypeImageManifest, nil
	}
	return "", fmt.Errorf("blob is neither an image manifest nor an index")
}

// checkPlatform refuses an image that this machine can't run.
func checkPlatform(name string, have ocispec.Platform) error {
	want := platforms.DefaultSpec()
	if have.OS == "" && have.Architecture == "" { // written by simple tools; runc will tell
		return nil
	}
	if platforms.Default().Match(have) {
		return nil
	}
	return &platformError{image: name, have: []ocispec.Platform{have}, want: want}
}

// platformError: the image is for other machines.
type platformError struct {
	image string
	have  []ocispec.Platform
	want  ocispec.Platform
}

func (p *platformError) Error() string {
	s := ""
	for i, h := range p.have {
		if i > 0 {
			s += ", "
		}
		s += platforms.Format(h)
	}
	return fmt.Sprintf("image %s is for %s, this machine is %s: use a tag or digest that has this platform, or build it for this one",
		p.image, s, platforms.Format(p.want))
}

func (p *platformError) Is(target error) bool { return target == spec.ErrRefused }

// unpacked reports whether the snapshot that containers start from is there,
// and since when.
func (e *Engine) unpacked(ctx context.Context, s *storedImage) (at time.Time, ok bool, err error) {
	info, err := e.client.SnapshotService(e.cfg.Snapshotter).Stat(ctx, s.chain)
	if isNotFound(err) {
		return at, false, nil
	}
	return info.Created, err == nil, e.wrap(ctx, err, "look for the unpacked image %s", s.target.Digest)
}
