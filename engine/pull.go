package engine

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"dunnage/spec"
)

const (
	pullTries = 3                      // of transient failures; downloads resume where they broke
	pullPause = 500 * time.Millisecond // before the second try; doubles
	pullLease = 24 * time.Hour         // keeps a broken download for a later resume
	pulledFor = time.Hour              // an image is kept so long for a release to retain it
)

// Pull resolves ref, downloads and unpacks what is missing, syncs it to disk
// and pins it by digest. With a digest in ref, an image that is present costs
// no word with the registry.
func (e *Engine) Pull(ctx context.Context, ref string, progress func(spec.PullProgress)) (spec.PinnedImage, error) {
	name, dgst, err := canonical(ref)
	if err != nil {
		return spec.PinnedImage{}, err
	}
	p := &pull{engine: e, name: name, ref: name, report: progress}
	if dgst != "" {
		p.ref = trimTag(name) + "@" + dgst.String() // the digest wins over a tag that moved
		if found, err := e.Resolve(ctx, ref); !errors.Is(err, spec.ErrNotFound) {
			p.state("", "ready", found.Size, found.Size)
			return found, err
		}
	}
	p.state("", "resolving", 0, 0) // a slow registry answers after minutes
	img, err := p.run(ctx)
	if err != nil {
		return spec.PinnedImage{}, err
	}
	return p.finish(ctx, img)
}

// pull is one call of Pull.
type pull struct {
	engine *Engine
	name   string // canonical, with the tag
	ref    string // what the registry is asked for, and the name in the store
	report func(spec.PullProgress)
	noted  atomic.Bool // as recent
	layers sync.Map    // digests of the layers that it has met
}

func (p *pull) state(layer, state string, offset, total int64) {
	if p.report != nil {
		p.report(spec.PullProgress{Image: p.name, Layer: layer, State: state, Offset: offset, Total: total})
	}
}

// waits tells of a request that has had no answer for seconds, until the registry has
// said what the reference means: then layers tell how it goes.
func (p *pull) waits(what string) {
	if p.report != nil && !p.noted.Load() {
		p.report(spec.PullProgress{Image: p.name, State: "resolving", Waiting: fmt.Sprintf("%s; given up after %s, %d tries in all", what, p.engine.cfg.PullIdle, pullTries)})
	}
}

// pullLeaseOf is the lease that a pull of the name uses.
func pullLeaseOf(name string) string {
	return leasePull + digest.FromString(name).Encoded()[:32]
}

// run tries until it has the image or a failure that trying again can't mend.
func (p *pull) run(ctx context.Context) (client.Image, error) {
	lease := pullLeaseOf(p.ref)
	defer p.engine.holds.enter(lease)()
	ctx, release, err := p.engine.leaseFor(ctx, lease, pullLease)
	if err != nil {
		return nil, sayNoSpace(err)
	}
	pause := pullPause
	for try := 1; ; try++ {
		img, err := p.once(ctx)
		if err == nil {
			release() // a failed pull keeps its lease, and what it has downloaded
			return img, nil
		}
		failure := p.explain(ctx, err)
		p.dropDamaged(ctx, err)
		if noSpace(err) {
			p.dropAll(ctx)
			release()
			p.engine.collectDropped(ctx)
			return nil, failure
		}
		if try == pullTries || !errors.Is(failure, spec.ErrUnavailable) {
			return nil, failure
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("pull %s: %w", p.name, context.Cause(ctx))
		case <-time.After(pause):
		}
		pause *= 2
	}
}

var expectedDigest = regexp.MustCompile(`expected (sha256:[0-9a-f]{64})`)

// dropDamaged throws away a download whose content is wrong: going on where it
// broke off would end the same for ever.
func (p *pull) dropDamaged(ctx context.Context, err error) {
	blob := expectedDigest.FindStringSubmatch(err.Error())
	if blob == nil {
		return
	}
	store := p.engine.client.ContentStore()
	downloads, err := store.ListStatuses(ctx)
	if err != nil { // the next pull meets it again, and tries again to drop it
		return
	}
	for _, d := range downloads {
		if strings.HasSuffix(d.Ref, blob[1]) {
			_ = store.Abort(ctx, d.Ref) // likewise
		}
	}
}

func (p *pull) once(ctx context.Context) (client.Image, error) {
	registry, err := p.engine.registry(ctx, p.waits)
	if err != nil {
		return nil, err
	}
	return p.engine.client.Pull(ctx, p.ref,
		client.WithResolver(meteredResolver{registry, p}),
		client.WithPullUnpack,
		client.WithPullSnapshotter(p.engine.cfg.Snapshotter),
		client.WithPlatformMatcher(platforms.Default()),
		client.WithImageHandlerWrapper(p.watch))
}

// watch looks at each manifest and configuration before and as it arrives: one
// that is here and damaged is fetched again, and an image for other machines
// is refused before its layers are downloaded.
func (p *pull) watch(next images.Handler) images.Handler {
	return images.HandlerFunc(func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		if !p.noted.Swap(true) { // the first to come is what the reference means
			if err := p.engine.noteRecent(ctx, desc.Digest.String(), p.name); err != nil {
				return nil, err
			}
		}
		if images.IsIndexType(desc.MediaType) || images.IsManifestType(desc.MediaType) || images.IsConfigType(desc.MediaType) {
			if err := p.engine.dropBlob(ctx, desc); err != nil {
				return nil, err
			}
		}
		children, err := next.Handle(ctx, desc)
		switch {
		case images.IsIndexType(desc.MediaType) && (err == nil && len(children) == 0 || errdefs.IsNotFound(err)):
			return nil, p.engine.namePlatforms(ctx, images.Image{Name: p.name, Target: desc}, errors.Join(err, errNoPlatform))
		case err != nil:
			return nil, err
		case images.IsManifestType(desc.MediaType):
			p.announce(ctx, children)
		case images.IsConfigType(desc.MediaType):
			have, err := images.ConfigPlatform(ctx, p.engine.client.ContentStore(), desc)
			if err != nil {
				return nil, err
			}
			if err := checkPlatform(p.name, have); err != nil {
				return nil, err
			}
		}
		return children, nil
	})
}

var errNoPlatform = errors.New("the index has no manifest for this platform")

// announce says which layers are to come and which are here.
func (p *pull) announce(ctx context.Context, children []ocispec.Descriptor) {
	for _, c := range children {
		if !images.IsLayerType(c.MediaType) {
			continue
		}
		p.layers.Store(c.Digest.String(), true)
		if _, err := p.engine.client.ContentStore().Info(ctx, c.Digest); err == nil {
			p.state(c.Digest.String(), "exists", c.Size, c.Size)
		} else {
			p.state(c.Digest.String(), "waiting", 0, c.Size)
		}
	}
}

// finish makes sure that the image is whole and on disk, and holds it until a
// release can.
func (p *pull) finish(ctx context.Context, img client.Image) (spec.PinnedImage, error) {
	p.state("", "unpacking", 0, 0)
	s, err := p.engine.stored(ctx, img.Target())
	if err != nil {
		return spec.PinnedImage{}, err
	}
	if err := p.engine.hold(ctx, img.Target().Digest.String()); err != nil {
		return spec.PinnedImage{}, err
	}
	if err := p.engine.syncImage(ctx, img.Target().Digest.String()); err != nil {
		return spec.PinnedImage{}, err
	}
	if _, err := p.engine.Verify(ctx, img.Target().Digest.String()); err != nil {
		return spec.PinnedImage{}, err
	}
	p.state("", "ready", s.size, s.size)
	return spec.PinnedImage{Ref: p.name, Digest: img.Target().Digest.String(), Size: s.size}, nil
}

// hold keeps a digest for a while even if its tag moves on.
func (e *Engine) hold(ctx context.Context, dgst string) error {
	manager := e.client.LeasesService()
	l := leases.Lease{ID: leasePulled + digest.Digest(dgst).Encoded()[:32]}
	if err := manager.Delete(ctx, l); err != nil && !errdefs.IsNotFound(err) { // its time starts anew
		return e.wrap(ctx, err, "renew the hold on image %s", dgst)
	}
	if _, err := manager.Create(ctx, leases.WithID(l.ID), leases.WithExpiration(pulledFor)); err != nil && !errdefs.IsAlreadyExists(err) {
		return e.wrap(ctx, err, "hold image %s", dgst)
	}
	return e.wrap(ctx, manager.AddResource(ctx, l, contentResource(dgst)), "hold image %s", dgst)
}
