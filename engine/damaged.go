package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// damagedBlob is one that isn't what its digest says: a disk or a power cut
// has garbled it. It counts as missing, so that a pull brings it again.
type damagedBlob digest.Digest

func (d damagedBlob) Error() string {
	return fmt.Sprintf("blob %s is damaged in containerd's content store", string(d))
}

func (damagedBlob) Is(target error) bool { return target == errdefs.ErrNotFound }

// checked reads whole blobs and compares them with their digests, which
// containerd does only when it stores them. It is for manifests and
// configurations: layers are too large, and unpacking compares them.
type checked struct{ content.Provider }

func (c checked) ReaderAt(ctx context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	blob, err := content.ReadBlob(ctx, c.Provider, desc)
	err = native(err)
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errdefs.IsOutOfRange(err): // cut off
		return nil, damagedBlob(desc.Digest)
	case err != nil:
		return nil, err
	case desc.Digest.Algorithm().FromBytes(blob) != desc.Digest:
		return nil, damagedBlob(desc.Digest)
	}
	return wholeBlob{bytes.NewReader(blob)}, nil
}

type wholeBlob struct{ *bytes.Reader }

func (wholeBlob) Close() error { return nil }

// dropBlob removes a manifest or configuration that is stored but damaged, or
// whose file is gone: containerd would take it for fetched.
func (e *Engine) dropBlob(ctx context.Context, desc ocispec.Descriptor) error {
	store := e.client.ContentStore()
	if _, err := store.Info(ctx, desc.Digest); isNotFound(err) {
		return nil
	} else if err != nil {
		return e.wrap(ctx, err, "find blob %s", desc.Digest)
	}
	_, err := checked{store}.ReaderAt(ctx, desc)
	if !isNotFound(err) {
		return e.wrap(ctx, err, "read blob %s", desc.Digest)
	}
	return e.drop(ctx, desc)
}

// drop removes a damaged blob, or what is left of a missing one.
func (e *Engine) drop(ctx context.Context, desc ocispec.Descriptor) error {
	store := e.client.ContentStore()
	e.cfg.Log.Warn("a blob in containerd's content store is damaged; it is dropped, to be stored again", "blob", desc.Digest)
	if err := store.Delete(ctx, desc.Digest); err != nil && !isNotFound(err) {
		return e.wrap(ctx, err, "remove damaged blob %s", desc.Digest)
	}
	// Until its file is gone too, containerd would take it for the blob again.
	return e.askToCollect(ctx)
}

// mendingStore is the content store for an import: what the archive brings and
// is stored already, but damaged, is dropped before it is written. Only that: for
// the rest of a damaged image, what is whole of it must not be collected.
type mendingStore struct {
	content.Store
	engine *Engine
}

// digestInRef finds the digest that tools name an archive's files by:
// blobs/sha256/HEX, HEX.json or sha256:HEX.
var digestInRef = regexp.MustCompile(`[0-9a-f]{64}`)

func (m mendingStore) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	var o content.WriterOpts
	for _, opt := range opts {
		if err := opt(&o); err != nil {
			return nil, err
		}
	}
	desc := o.Desc
	if hex := digestInRef.FindString(o.Ref); desc.Digest == "" && hex != "" {
		desc.Digest = digest.NewDigestFromEncoded(digest.SHA256, hex)
	}
	if desc.Digest != "" {
		info, err := m.Info(ctx, desc.Digest)
		if err == nil && info.Size <= mostManifest {
			err = m.engine.dropBlob(ctx, desc)
		}
		if err != nil && !isNotFound(err) {
			return nil, err
		}
	}
	return m.Store.Writer(ctx, opts...)
}

// ReaderAt tells damage in the store from an archive that can't be read.
func (m mendingStore) ReaderAt(ctx context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	if desc.Size > mostManifest {
		return m.Store.ReaderAt(ctx, desc)
	}
	return checked{m.Store}.ReaderAt(ctx, desc)
}
