package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

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
	e.cfg.Log.Warn("a blob in containerd's content store is damaged; it is fetched again", "blob", desc.Digest)
	if err := store.Delete(ctx, desc.Digest); err != nil && !isNotFound(err) {
		return e.wrap(ctx, err, "remove damaged blob %s", desc.Digest)
	}
	// Until its file is gone too, containerd would take it for the blob again.
	return e.askToCollect(ctx)
}
