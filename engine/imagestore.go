package engine

import (
	"bufio"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"dunnage/internal/fault"
	"dunnage/spec"
)

// canonical turns what people write into the full name, as Docker does:
// "nginx" is docker.io/library/nginx:latest. A digest stays apart.
func canonical(ref string) (name string, dgst digest.Digest, err error) {
	named, err := reference.ParseDockerRef(ref)
	if err != nil {
		return "", "", fmt.Errorf("image %q: %w: a reference looks like registry/name:tag or name@sha256:…: %w", ref, err, spec.ErrRefused)
	}
	if d, ok := named.(reference.Digested); ok {
		dgst = d.Digest()
		// ParseDockerRef has dropped a tag beside the digest: people want to see it.
		if full, err := reference.ParseNormalizedNamed(ref); err == nil {
			if t, ok := full.(reference.Tagged); ok {
				return reference.TrimNamed(named).Name() + ":" + t.Tag(), dgst, nil
			}
		}
		return reference.TrimNamed(named).Name(), dgst, nil
	}
	return named.String(), "", nil
}

// Resolve finds the image for ref among the stored and unpacked ones, or wraps
// spec.ErrNotFound. It never asks a registry.
func (e *Engine) Resolve(ctx context.Context, ref string) (spec.PinnedImage, error) {
	image, err := e.Named(ctx, ref)
	if err != nil {
		return spec.PinnedImage{}, err
	}
	s, err := e.storedByDigest(ctx, image.Digest)
	if err != nil {
		return spec.PinnedImage{}, fmt.Errorf("image %s: %w", image.Ref, err)
	}
	at, ok, err := e.unpacked(ctx, s)
	if err == nil && !ok {
		err = fmt.Errorf("image %s is stored but not unpacked: %w", image.Ref, spec.ErrNotFound)
	}
	if err == nil {
		err = e.settle(ctx, image.Ref, image.Digest, at)
	}
	if err != nil {
		return spec.PinnedImage{}, err
	}
	image.Size = s.size
	return image, nil
}

// Named is what ref means here, without its size: Resolve for what may be damaged.
func (e *Engine) Named(ctx context.Context, ref string) (spec.PinnedImage, error) {
	name, dgst, err := canonical(ref)
	if err != nil {
		return spec.PinnedImage{}, err
	}
	if dgst == "" {
		img, err := e.client.ImageService().Get(ctx, name)
		if err != nil {
			return spec.PinnedImage{}, e.wrap(ctx, err, "find image %s", name)
		}
		dgst = img.Target.Digest
	}
	return spec.PinnedImage{Ref: name, Digest: dgst.String()}, nil
}

// Load stores and unpacks the images of an archive, as `docker save` or as an
// OCI layout in a tar file, plain or with gzip, and returns them sorted by
// reference. When one of them fails, no name is new or means another image.
func (e *Engine) Load(ctx context.Context, archive io.Reader) ([]spec.Image, error) {
	lease := leaseLoad + rand.Text()
	defer e.holds.enter(lease)()
	leased, release, err := e.leaseFor(ctx, lease, pullLease)
	if err != nil {
		return nil, e.loadFailed(ctx, err)
	}
	out, err := e.load(leased, archive)
	release()
	if errors.Is(err, spec.ErrNoSpace) {
		e.collectDropped(ctx)
	}
	return out, err
}

func (e *Engine) load(ctx context.Context, archive io.Reader) ([]spec.Image, error) {
	before, err := e.client.ImageService().List(ctx)
	if err != nil {
		return nil, e.wrap(ctx, err, "list images")
	}
	imported, err := e.importArchive(ctx, archive)
	if err != nil {
		return nil, e.loadFailed(ctx, err)
	}
	out, err := e.unpackAll(ctx, imported)
	if err != nil {
		return nil, errors.Join(e.loadFailed(ctx, err), e.putBack(ctx, imported, before))
	}
	return out, nil
}

// loadFailed says of a load that met the end of the disk that it did.
func (e *Engine) loadFailed(ctx context.Context, err error) error {
	if ctx.Err() != nil || !noSpace(err) {
		return err
	}
	hint, full := fullDisk(err)
	return &callError{op: "load archive", kind: spec.ErrRefused, err: full, hint: "none of its images is stored; " + hint}
}

func (e *Engine) unpackAll(ctx context.Context, imported []images.Image) ([]spec.Image, error) {
	var out []spec.Image
	for _, img := range imported {
		loaded, err := e.unpackImage(ctx, img)
		if err != nil {
			return nil, err
		}
		out = append(out, loaded)
	}
	sortImages(out)
	return out, e.settleLoaded(ctx, out)
}

// putBack makes the names of the imported mean what they meant before, also
// when the caller's time is up.
func (e *Engine) putBack(ctx context.Context, imported, before []images.Image) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.cfg.RPCTimeout)
	defer cancel()
	var errs []error
	for _, img := range imported {
		i := slices.IndexFunc(before, func(b images.Image) bool { return b.Name == img.Name })
		if i < 0 {
			errs = append(errs, e.forget(ctx, img.Name))
			continue
		}
		_, err := e.client.ImageService().Update(ctx, before[i])
		errs = append(errs, e.wrap(ctx, err, "put image %s back", img.Name))
	}
	return errors.Join(errs...)
}

// importArchive stores an archive's blobs and names its images.
func (e *Engine) importArchive(ctx context.Context, archive io.Reader) ([]images.Image, error) {
	plain, err := unzipped(archive)
	if err != nil {
		return nil, badArchive(err)
	}
	mending, err := client.New("", client.WithServices(
		client.WithContentStore(mendingStore{e.client.ContentStore(), e}),
		client.WithImageStore(e.client.ImageService()),
		client.WithLeasesService(e.client.LeasesService())))
	if err != nil {
		return nil, err
	}
	imported, err := mending.Import(ctx, plain,
		client.WithImageRefTranslator(func(ref string) string {
			name, _, err := canonical(ref)
			if err != nil { // no name that can be used later: the image is skipped
				return ""
			}
			return name
		}),
		client.WithAllPlatforms(true), // an image of another one is refused by its name, not by "filtered out"
		client.WithSkipMissing())      // other platforms of an index may have been left out
	err = native(err)
	switch {
	case err != nil && (ctx.Err() != nil || ofContainerd(err)):
		return nil, e.wrap(ctx, err, "load archive")
	case err != nil:
		return nil, badArchive(err)
	case len(imported) == 0:
		return nil, fmt.Errorf("load archive: it names no image; save it with a name and tag: %w", spec.ErrRefused)
	}
	return imported, nil
}

// badArchive is the error of an archive that can't be read.
func badArchive(err error) error {
	return &callError{
		op: "load archive", kind: spec.ErrRefused, err: err,
		hint: "expected a tar file as `docker save` (docker-archive) or skopeo (oci-archive) writes it, plain or compressed with gzip",
	}
}

// ofContainerd reports whether containerd failed, rather than what it was given.
func ofContainerd(err error) bool {
	for _, class := range []error{
		errdefs.ErrUnavailable, errdefs.ErrUnknown, errdefs.ErrInternal, errdefs.ErrResourceExhausted,
		errdefs.ErrPermissionDenied, errdefs.ErrDataLoss, errdefs.ErrNotFound, errdefs.ErrOutOfRange, context.DeadlineExceeded, context.Canceled,
	} {
		if errors.Is(err, class) {
			return true
		}
	}
	return false
}

// gzipMagic is what compressed content begins with.
const gzipMagic = "\x1f\x8b"

// unzipped is the archive without gzip's compression, where it has that.
func unzipped(archive io.Reader) (io.Reader, error) {
	b := bufio.NewReader(archive)
	if magic, _ := b.Peek(2); string(magic) == gzipMagic { // one that is too short is told of by tar
		return gzip.NewReader(b)
	}
	return b, nil
}

func sortImages(list []spec.Image) {
	slices.SortFunc(list, func(a, b spec.Image) int {
		return cmp.Or(cmp.Compare(a.Ref, b.Ref), cmp.Compare(a.Digest, b.Digest))
	})
}

// forget takes away the name of an image that turned out to be unusable.
func (e *Engine) forget(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.cfg.RPCTimeout)
	defer cancel()
	if err := e.client.ImageService().Delete(ctx, name); err != nil && !errdefs.IsNotFound(err) {
		return e.wrap(ctx, err, "remove image %s", name)
	}
	return nil
}

func (e *Engine) unpackImage(ctx context.Context, img images.Image) (spec.Image, error) {
	s, err := e.stored(ctx, img.Target)
	if err != nil {
		return spec.Image{}, fmt.Errorf("image %s: %w", img.Name, e.namePlatforms(ctx, img, err))
	}
	if err := e.noteRecent(ctx, img.Target.Digest.String(), img.Name); err != nil {
		return spec.Image{}, err
	}
	if err := client.NewImageWithPlatform(e.client, img, platforms.Default()).Unpack(ctx, e.cfg.Snapshotter); err != nil {
		return spec.Image{}, e.wrap(ctx, err, "unpack image %s", img.Name)
	}
	return s.show(img.Name), nil
}

// namePlatforms replaces "no match" by what the index offers.
func (e *Engine) namePlatforms(ctx context.Context, img images.Image, cause error) error {
	offered, err := images.Platforms(ctx, e.client.ContentStore(), img.Target)
	if err != nil || len(offered) == 0 {
		return cause
	}
	for _, p := range offered {
		if platforms.Default().Match(p) {
			return cause
		}
	}
	return &platformError{image: img.Name, have: offered, want: platforms.DefaultSpec()}
}

func (s *storedImage) show(name string) spec.Image {
	out := spec.Image{Ref: name, Digest: s.target.Digest.String(), Size: s.size}
	if s.created != nil {
		out.Created = *s.created
	}
	return out
}

// syncStore writes content and snapshots to disk. containerd before 2.0 does
// not: after a power cut files of an unpacked layer could be empty
// (containerd issues 5854, 10457).
func (e *Engine) syncStore(ctx context.Context) error {
	roots, err := e.storeRoots(ctx)
	if err != nil {
		return err
	}
	for _, dir := range roots {
		if err := fault.Do("image store sync", func() error { return syncFS(dir) }); err != nil {
			return err
		}
	}
	return nil
}

// storeRoots asks containerd where its content and snapshots are.
func (e *Engine) storeRoots(ctx context.Context) ([]string, error) {
	r, err := e.client.IntrospectionService().Plugins(ctx, "type==io.containerd.content.v1", "type==io.containerd.snapshotter.v1,id=="+e.cfg.Snapshotter)
	if err != nil {
		return nil, e.wrap(ctx, err, "ask containerd for its directories")
	}
	var roots []string
	for _, p := range r.Plugins {
		if root := p.Exports["root"]; root != "" {
			roots = append(roots, root)
		}
	}
	if len(roots) == 0 {
		return nil, fmt.Errorf("containerd has no %s snapshotter: set another one", e.cfg.Snapshotter)
	}
	return roots, nil
}

// ListImages lists the stored images that are usable here, by reference.
func (e *Engine) ListImages(ctx context.Context) ([]spec.Image, error) {
	list, err := e.client.ImageService().List(ctx)
	if err != nil {
		return nil, e.wrap(ctx, err, "list images")
	}
	out := make([]spec.Image, 0, len(list))
	for _, img := range list {
		s, err := e.stored(ctx, img.Target)
		if errors.Is(err, spec.ErrUnavailable) || ctx.Err() != nil {
			return nil, err
		}
		if err != nil { // damaged or for other machines: listed, so that it can be removed
			out = append(out, spec.Image{Ref: img.Name, Digest: img.Target.Digest.String()})
			continue
		}
		out = append(out, s.show(img.Name))
	}
	sortImages(out)
	return out, nil
}

// RemoveImage forgets the name and lets containerd collect what nothing else
// uses. An image that a release retains or a container runs is refused.
func (e *Engine) RemoveImage(ctx context.Context, ref string) error {
	name, dgst, err := canonical(ref)
	if err != nil {
		return err
	}
	list, err := e.client.ImageService().List(ctx)
	if err != nil {
		return e.wrap(ctx, err, "list images")
	}
	found := slices.DeleteFunc(list, func(i images.Image) bool {
		if dgst == "" {
			return i.Name != name
		}
		return i.Target.Digest != dgst
	})
	if len(found) == 0 {
		return fmt.Errorf("remove image %s: %w", ref, spec.ErrNotFound)
	}
	for _, img := range found {
		if err := e.removeImage(ctx, img); err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) removeImage(ctx context.Context, img images.Image) error {
	users, err := e.imageUsers(ctx, img.Target.Digest)
	if err != nil {
		return err
	}
	if len(users) > 0 {
		return fmt.Errorf("remove image %s: %s uses it: %w", img.Name, users[0], spec.ErrRefused)
	}
	err = e.client.ImageService().Delete(ctx, img.Name, images.SynchronousDelete())
	if err != nil && !errdefs.IsNotFound(err) {
		return e.wrap(ctx, err, "remove image %s", img.Name)
	}
	return nil
}

// imageUsers names the releases and containers that need a digest.
func (e *Engine) imageUsers(ctx context.Context, dgst digest.Digest) ([]string, error) {
	manager := e.client.LeasesService()
	held, err := manager.List(ctx, `labels."`+labelRelease+`"`)
	if err != nil {
		return nil, e.wrap(ctx, err, "list leases")
	}
	var users []string
	for _, l := range held {
		resources, err := manager.ListResources(ctx, l)
		if err != nil && !errdefs.IsNotFound(err) {
			return nil, e.wrap(ctx, err, "list what %s retains", l.ID)
		}
		if slices.Contains(resources, contentResource(dgst.String())) {
			users = append(users, "release "+l.Labels[labelRelease])
		}
	}
	running, err := e.client.ContainerService().List(ctx, ownedFilter)
	if err != nil {
		return nil, e.wrap(ctx, err, "list containers")
	}
	for _, c := range running {
		if _, d, err := canonical(c.Image); err == nil && d == dgst {
			users = append(users, "replica "+c.ID)
		}
	}
	return users, nil
}

// labelRelease marks the leases that Retain makes.
const labelRelease = "dunnage/release"

// contentResource refers to an index or manifest; the labels that containerd
// sets on blobs make it hold config, layers and unpacked snapshots too.
func contentResource(dgst string) leases.Resource {
	return leases.Resource{ID: dgst, Type: "content"}
}

// Retain makes the digests survive removal and collection under name; an
// empty list lets go. New digests are added before old ones are let go.
func (e *Engine) Retain(ctx context.Context, name string, pinned []spec.PinnedImage) error {
	if len(pinned) == 0 {
		return e.withRoom(func() error { return e.letGoAll(ctx, name) })
	}
	e.holds.want(pinned...)
	return e.withRoom(func() error { return e.retain(ctx, name, pinned) })
}

func (e *Engine) retain(ctx context.Context, name string, pinned []spec.PinnedImage) error {
	manager := e.client.LeasesService()
	l := releaseLease(name)
	_, err := manager.Create(ctx, leases.WithID(l.ID), leases.WithLabel(labelRelease, name))
	existed := errdefs.IsAlreadyExists(err)
	if err != nil && !existed {
		return e.wrap(ctx, err, "retain the images of %s", name)
	}
	wanted := make(map[leases.Resource]bool)
	for _, p := range pinned {
		r := contentResource(p.Digest)
		wanted[r] = true
		if err := manager.AddResource(ctx, l, r); err != nil {
			return e.wrap(ctx, err, "retain %s for %s", p.Pinned(), name)
		}
	}
	if !existed {
		return nil
	}
	return e.letGo(ctx, l, wanted)
}

// Retained lists the names that images are retained under, sorted.
func (e *Engine) Retained(ctx context.Context) ([]string, error) {
	all, err := e.client.LeasesService().List(ctx, fmt.Sprintf("labels.%q", labelRelease))
	if err != nil {
		return nil, e.wrap(ctx, err, "list what is retained")
	}
	var names []string
	for _, l := range all {
		names = append(names, l.Labels[labelRelease])
	}
	slices.Sort(names)
	return names, nil
}

func (e *Engine) letGo(ctx context.Context, l leases.Lease, wanted map[leases.Resource]bool) error {
	manager := e.client.LeasesService()
	held, err := manager.ListResources(ctx, l)
	if err != nil {
		return e.wrap(ctx, err, "list what %s retains", l.ID)
	}
	for _, r := range held {
		if wanted[r] {
			continue
		}
		if err := manager.DeleteResource(ctx, l, r); err != nil && !errdefs.IsNotFound(err) {
			return e.wrap(ctx, err, "let go of %s", r.ID)
		}
	}
	return nil
}
