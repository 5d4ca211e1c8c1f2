package engine

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"dunnage/spec"
)

// Verify compares an image that is in doubt with what its digests say: its blobs,
// and every file of its unpacked layers with the layers' archives. Files that
// differ are unpacked again, in place, because writable layers stand on them;
// blobs that are damaged are fetched again. It returns what was mended, one line
// a thing. Nothing may run on the image meanwhile.
//
// An error leaves the image in doubt. One that wraps spec.ErrNotFound says that
// what is missing can't be had from the registry now.
//
// With no digest it finds out which images are in doubt, and makes way for the notes
// of them.
func (e *Engine) Verify(ctx context.Context, dgst string) (mended []string, err error) {
	if mended, err = e.doubtAll(ctx); err != nil || dgst == "" {
		return mended, err
	}
	ref, doubted := e.recent.doubted(dgst)
	if !doubted {
		return nil, nil
	}
	mended, err = e.mendImage(ctx, ref, dgst)
	if err == nil {
		err = e.recent.verified(dgst)
	}
	if err != nil && ctx.Err() == nil {
		e.recent.failed(dgst, err)
	}
	return mended, err
}

// mendImage is Verify with a second try once the registry has sent what was damaged.
func (e *Engine) mendImage(ctx context.Context, ref, dgst string) (mended []string, err error) {
	ctx, release, err := e.leaseFor(ctx, "verify-"+strings.TrimPrefix(dgst, "sha256:")[:32], time.Hour)
	if err != nil {
		return nil, err
	}
	defer release()
	lost, mended, err := e.mendFromStore(ctx, dgst)
	if err != nil || len(lost) == 0 {
		return mended, err
	}
	for _, d := range lost {
		mended = append(mended, "blob "+d+" is damaged")
	}
	if err := e.fetchAgain(ctx, ref, dgst); err != nil {
		return mended, fmt.Errorf("%s of it is damaged since the power was cut, and it can't be fetched: %w: %w", lost[0], err, spec.ErrNotFound)
	}
	lost, more, err := e.mendFromStore(ctx, dgst)
	if err == nil && len(lost) > 0 {
		err = fmt.Errorf("%s of it is damaged although it was fetched again; check the disk: %w", lost[0], spec.ErrNotFound)
	}
	return append(mended, more...), err
}

// fetchAgain downloads the blobs of an image that aren't stored.
func (e *Engine) fetchAgain(ctx context.Context, ref, dgst string) error {
	p := &pull{engine: e, name: ref, ref: trimTag(ref) + "@" + dgst}
	registry, err := e.registry(ctx, nil)
	if err != nil {
		return err
	}
	_, err = e.client.Fetch(ctx, p.ref,
		client.WithResolver(meteredResolver{registry, p}),
		client.WithPlatformMatcher(platforms.Default()),
		client.WithImageHandlerWrapper(p.watch))
	if err != nil {
		return p.explain(ctx, err)
	}
	return nil
}

// mendFromStore mends what it can without the registry, and returns the blobs
// that are missing for the rest. Damaged ones are dropped: whoever brings the
// image next, an archive or the registry, brings them.
func (e *Engine) mendFromStore(ctx context.Context, dgst string) (lost, mended []string, err error) {
	s, err := e.storedByDigest(ctx, dgst)
	switch {
	case errors.Is(err, spec.ErrNotFound):
		return []string{dgst}, nil, nil // its manifest or configuration; the fetch drops what is damaged
	case err != nil:
		return nil, nil, err
	}
	dirs, err := e.layerDirs(ctx, s)
	if err != nil && !errors.Is(err, spec.ErrNotFound) {
		return nil, nil, err
	}
	unpacked := err == nil
	for i, layer := range s.manifest.Layers {
		dir := ""
		if unpacked {
			dir = dirs[i]
		}
		wrong, err := e.checkLayer(ctx, layer, dir, i == 0)
		switch {
		case isNotFound(err):
			if err := e.drop(ctx, layer); err != nil {
				return nil, nil, err
			}
			lost = append(lost, layer.Digest.String())
		case err != nil:
			return nil, nil, fmt.Errorf("verify layer %s: %w", layer.Digest, err)
		case wrong != "":
			if err := e.applyLayer(ctx, layer, dir, dirs[:i]); err != nil {
				return nil, nil, fmt.Errorf("unpack layer %s again: %w", layer.Digest, err)
			}
			mended = append(mended, fmt.Sprintf("layer %s: %s", layer.Digest, wrong))
		}
	}
	if len(lost) > 0 {
		return lost, mended, nil
	}
	if !unpacked {
		img := client.NewImageWithPlatform(e.client, images.Image{Name: dgst, Target: s.target}, platforms.Default())
		if err := img.Unpack(ctx, e.cfg.Snapshotter); err != nil {
			return nil, nil, e.wrap(ctx, err, "unpack image %s", dgst)
		}
		mended = append(mended, "it wasn't unpacked whole")
	}
	return nil, mended, e.syncStore(ctx)
}

// layerDirs are the directories of the unpacked layers, the lowest first. It
// wraps spec.ErrNotFound if there are none.
func (e *Engine) layerDirs(ctx context.Context, s *storedImage) ([]string, error) {
	if len(s.manifest.Layers) == 0 {
		return nil, nil
	}
	sn := e.client.SnapshotService(e.cfg.Snapshotter)
	key := "verify-" + s.target.Digest.Encoded()[:32]
	if err := sn.Remove(ctx, key); err != nil && !errdefs.IsNotFound(err) { // of a verification that a crash ended
		return nil, e.wrap(ctx, err, "remove an old view of image %s", s.target.Digest)
	}
	mounts, err := sn.View(ctx, key, s.chain)
	if err != nil {
		return nil, e.wrap(ctx, err, "look into the unpacked image %s", s.target.Digest)
	}
	// Nothing holds it: a collection of garbage may have removed it already.
	if err := sn.Remove(ctx, key); err != nil && !isNotFound(err) {
		return nil, e.wrap(ctx, err, "remove the view of image %s", s.target.Digest)
	}
	var dirs []string
	if len(mounts) == 1 {
		if dirs = []string{mounts[0].Source}; mounts[0].Type == "overlay" {
			dirs = strings.Split(option(mounts[0].Options, "lowerdir"), ":")
			slices.Reverse(dirs)
		}
	}
	if len(dirs) != len(s.manifest.Layers) {
		return nil, fmt.Errorf("look into the unpacked image %s: it has %d layers, and the snapshotter shows %d directories; use the overlayfs snapshotter", s.target.Digest, len(s.manifest.Layers), len(dirs))
	}
	return dirs, nil
}

// checkLayer reads the whole blob of a layer and says how the directory differs
// from it; no directory differs in nothing. A blob that is missing or damaged
// wraps errdefs.ErrNotFound.
func (e *Engine) checkLayer(ctx context.Context, layer ocispec.Descriptor, dir string, lowest bool) (wrong string, err error) {
	err = e.readLayer(ctx, layer, func(r io.Reader) error {
		if dir == "" {
			return nil
		}
		wrong, err = compareLayer(ctx, r, dir, lowest)
		return err
	})
	return wrong, err
}

// readLayer gives f the layer's archive, and then compares the blob with its
// digest: that failing outweighs what f says.
func (e *Engine) readLayer(ctx context.Context, layer ocispec.Descriptor, f func(io.Reader) error) error {
	blob, err := e.client.ContentStore().ReaderAt(ctx, layer)
	if err != nil {
		return err
	}
	defer blob.Close()
	if blob.Size() != layer.Size {
		return damagedBlob(layer.Digest)
	}
	sum := layer.Digest.Algorithm().Digester()
	all := io.TeeReader(content.NewReader(blob), sum.Hash())
	plain, err := compression.DecompressStream(all)
	if err == nil {
		err = errors.Join(f(plain), plain.Close())
	}
	_, drained := io.Copy(io.Discard, all)
	drained = native(drained)
	if drained != nil && !errdefs.IsOutOfRange(drained) { // cut off
		return drained
	}
	if sum.Digest() != layer.Digest {
		return damagedBlob(layer.Digest)
	}
	return err
}

// applyLayer unpacks a layer over what is there of it: what is right stays, the
// rest is replaced.
func (e *Engine) applyLayer(ctx context.Context, layer ocispec.Descriptor, dir string, below []string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var opts []archive.ApplyOpt
	if len(below) > 0 { // as containerd does: the lowest layer has nothing to hide
		parents := slices.Clone(below)
		slices.Reverse(parents)
		opts = []archive.ApplyOpt{archive.WithParents(parents), archive.WithConvertWhiteout(func(h *tar.Header, p string) (bool, error) {
			if base := path.Base(p); strings.HasPrefix(base, whiteout) && base != opaque {
				if err := os.RemoveAll(path.Join(path.Dir(p), strings.TrimPrefix(base, whiteout))); err != nil {
					return false, err
				}
			}
			return archive.OverlayConvertWhiteout(h, p)
		})}
	}
	err := e.readLayer(ctx, layer, func(r io.Reader) error {
		_, err := archive.Apply(ctx, dir, r, opts...)
		return err
	})
	if err != nil {
		return err
	}
	return syncFS(dir)
}

// How layers say that something of the layers below isn't there any more.
const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
)

// compareLayer says how a directory differs from the layer that was unpacked
// into it, "" = in nothing. Times aren't compared, nor what else lies there.
func compareLayer(ctx context.Context, r io.Reader, dir string, lowest bool) (string, error) {
	root, err := openDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return "its directory is missing", nil
	}
	if err != nil {
		return "", err
	}
	defer root.Close()           //nolint:errcheck // read only
	wrong := map[string]string{} // by path: an archive may bring the same one twice, and the last counts
	for archive := tar.NewReader(r); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err := errors.Join(err, ctx.Err()); err != nil {
			return "", err
		}
		name := path.Clean("/" + h.Name)
		switch base := path.Base(name); {
		case name == "/" || lowest && strings.HasPrefix(base, whiteout):
		case base == opaque:
			wrong[name] = root.hides(path.Dir(name))
		case strings.HasPrefix(base, whiteout):
			name = path.Join(path.Dir(name), strings.TrimPrefix(base, whiteout))
			wrong[name] = root.compare(name, &tar.Header{Typeflag: tar.TypeChar, Uid: h.Uid, Gid: h.Gid}, nil)
		default:
			wrong[name] = root.compare(name, h, archive)
		}
	}
	return firstOf(wrong), nil
}

// firstOf names one difference and counts the others.
func firstOf(wrong map[string]string) string {
	var all []string
	for name, what := range wrong {
		if what != "" {
			all = append(all, name+" "+what)
		}
	}
	if len(all) == 0 {
		return ""
	}
	slices.Sort(all)
	text := all[0]
	if n := len(all) - 1; n > 0 {
		text += fmt.Sprintf(", and %d more", n)
	}
	return text
}

// compare says how what stands at a path differs from the archive's entry.
func (v *rootView) compare(name string, h *tar.Header, body io.Reader) string {
	f, err := v.open(name, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return "is missing"
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return "can't be looked at: " + err.Error()
	}
	if h.Typeflag == tar.TypeLink {
		return v.compareLink(h.Linkname, &st)
	}
	kinds := map[byte]uint32{
		tar.TypeReg: unix.S_IFREG, tar.TypeDir: unix.S_IFDIR, tar.TypeSymlink: unix.S_IFLNK,
		tar.TypeChar: unix.S_IFCHR, tar.TypeBlock: unix.S_IFBLK, tar.TypeFifo: unix.S_IFIFO,
	}
	kind, known := kinds[h.Typeflag]
	switch {
	case !known: // a header of the whole archive
		return ""
	case st.Mode&unix.S_IFMT != kind:
		return "is something else"
	case int(st.Uid) != h.Uid || int(st.Gid) != h.Gid:
		return "has another owner"
	case kind != unix.S_IFLNK && body != nil && st.Mode&0o7777 != uint32(h.Mode)&0o7777:
		return "has other permissions"
	case (kind == unix.S_IFCHR || kind == unix.S_IFBLK) && st.Rdev != unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor)):
		return "is another device"
	case kind == unix.S_IFLNK:
		return compareTarget(f, h.Linkname)
	case kind == unix.S_IFREG && st.Size != h.Size:
		return fmt.Sprintf("has %d bytes instead of %d", st.Size, h.Size)
	case kind == unix.S_IFREG:
		return v.compareBody(name, h, body)
	}
	return ""
}

// compareLink looks whether a hard link leads to the same file as its target.
func (v *rootView) compareLink(target string, st *unix.Stat_t) string {
	f, err := v.open(path.Clean("/"+target), unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return "is a link to what is missing"
	}
	defer f.Close()
	var to unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &to); err != nil || to.Ino != st.Ino {
		return "is a link to something else"
	}
	return ""
}

func compareTarget(f *os.File, want string) string {
	b := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(f.Fd()), "", b)
	if err != nil || string(b[:n]) != want {
		return "leads elsewhere"
	}
	return ""
}

// compareBody compares a file's bytes, and the capabilities that it gives.
func (v *rootView) compareBody(name string, h *tar.Header, body io.Reader) string {
	f, err := v.open(name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK)
	if err != nil {
		return "can't be opened: " + err.Error()
	}
	defer f.Close()
	const capability = "security.capability"
	if want, ok := h.PAXRecords["SCHILY.xattr."+capability]; ok {
		b := make([]byte, len(want)+1)
		if n, err := unix.Fgetxattr(int(f.Fd()), capability, b); err != nil || string(b[:n]) != want {
			return "has other capabilities"
		}
	}
	have, want := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, end := io.ReadFull(body, want)
		if n == 0 {
			return ""
		}
		if _, err := io.ReadFull(f, have[:n]); err != nil {
			return "can't be read: " + err.Error()
		}
		if !bytes.Equal(have[:n], want[:n]) {
			return "has other content"
		}
		if end != nil { // the archive's own errors come up at its next entry
			return ""
		}
	}
}

// hides says whether a directory covers what the layers below have in it.
func (v *rootView) hides(dir string) string {
	f, err := v.open(dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return "is missing"
	}
	defer f.Close()
	b := make([]byte, 2)
	if n, err := unix.Fgetxattr(int(f.Fd()), "trusted.overlay.opaque", b); err != nil || string(b[:n]) != "y" {
		return "shows what it should hide"
	}
	return ""
}
