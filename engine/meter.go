package engine

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// meteredResolver reports the progress of the layers that are downloaded
// through it.
type meteredResolver struct {
	remotes.Resolver
	pull *pull
}

func (m meteredResolver) Fetcher(ctx context.Context, ref string) (remotes.Fetcher, error) {
	f, err := m.Resolver.Fetcher(ctx, ref)
	if err != nil {
		return nil, err
	}
	return remotes.FetcherFunc(func(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
		rc, err := f.Fetch(ctx, desc)
		if err != nil || !images.IsLayerType(desc.MediaType) {
			return rc, err
		}
		return &meter{ReadCloser: rc, pull: m.pull, desc: desc}, nil
	}), nil
}

// meter counts a layer's bytes. One goroutine reads it.
type meter struct {
	io.ReadCloser
	pull *pull
	desc ocispec.Descriptor
	at   int64
	next time.Time // of the next report
	done bool
}

// reportEvery keeps a fast download from drowning its watchers.
const reportEvery = 100 * time.Millisecond

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.ReadCloser.Read(p)
	m.at += int64(n)
	now := time.Now()
	switch {
	case m.at >= m.desc.Size:
		if !m.done {
			m.pull.state(m.desc.Digest.String(), "done", m.at, m.desc.Size)
		}
		m.done = true
	case now.After(m.next):
		m.pull.state(m.desc.Digest.String(), "downloading", m.at, m.desc.Size)
		m.next = now.Add(reportEvery)
	}
	return n, err
}

// Seek lets a broken download go on where it was.
func (m *meter) Seek(offset int64, whence int) (int64, error) {
	s, ok := m.ReadCloser.(io.Seeker)
	if !ok {
		return 0, errors.New("this registry's download can't be resumed")
	}
	at, err := s.Seek(offset, whence)
	if err == nil {
		m.at = at
	}
	return at, err
}
