package engine

import (
	"errors"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"dunnage/internal/testenv"
	"dunnage/spec"
)

// Missing is what a pull downloads: everything of a new image, and what differs of
// one that shares its layers with a stored one. It stores nothing.
func TestMissing(t *testing.T) {
	b := newBench(t)
	reg := newRegistry(t)
	first := testenv.AppImage(t, "1")
	ref := reg.push(t, "team/app:1", first)
	blobs, err := b.Missing(b.ctx, ref)
	if err != nil {
		t.Fatal(err)
	}
	size, room := spec.Room(blobs)
	if room.Bytes < 2*size || room.Bytes > 5*size || room.Inodes < int64(len(blobs)) {
		t.Errorf("%d bytes to download take %+v", size, room)
	}
	if _, err := b.Resolve(b.ctx, ref); !errors.Is(err, spec.ErrNotFound) {
		t.Errorf("it has pulled: %v", err)
	}
	pinned, err := b.Pull(b.ctx, ref, nil)
	if err != nil || size == 0 || size > pinned.Size {
		t.Errorf("said %d bytes, pulled %+v, %v", size, pinned, err)
	}
	config, err := first.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config.Config.Env = append(config.Config.Env, "ANOTHER=1")
	second, err := mutate.ConfigFile(first, config)
	if err != nil {
		t.Fatal(err)
	}
	ref = reg.push(t, "team/app:2", second)
	blobs, err = b.Missing(b.ctx, ref)
	if left, _ := spec.Room(blobs); err != nil || left == 0 || left > 64<<10 || left > size {
		t.Errorf("%d bytes beside %d, %v", left, size, err)
	}
	if blobs, err := b.Missing(b.ctx, reg.host+"/team/none:1"); err == nil {
		t.Errorf("an image that isn't there has %+v", blobs)
	}
}
