package apitest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"dunnage/spec"
)

// Images implements api.Backend.
func (f *Fake) Images(context.Context) ([]spec.Image, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]spec.Image{}, f.images...), nil
}

// Pull implements api.Backend. A reference with "missing" in it isn't found.
func (f *Fake) Pull(_ context.Context, ref string, progress func(spec.PullProgress)) (spec.Image, error) {
	if strings.Contains(ref, "missing") {
		return spec.Image{}, fmt.Errorf("pull %s: %w", ref, spec.ErrNotFound)
	}
	progress(spec.PullProgress{Image: ref, State: "resolving"})
	layer := "sha256:" + strings.Repeat("ab", 32)
	progress(spec.PullProgress{Image: ref, Layer: layer, State: "downloading", Offset: 1 << 20, Total: 2 << 20})
	progress(spec.PullProgress{Image: ref, Layer: layer, State: "done", Offset: 2 << 20, Total: 2 << 20})
	progress(spec.PullProgress{Image: ref, State: "unpacking"})
	progress(spec.PullProgress{Image: ref, State: "ready"})
	return f.store(ref, 2<<20), nil
}

// Load implements api.Backend: every line of the archive is an image.
func (f *Fake) Load(_ context.Context, archive io.Reader) ([]spec.Image, error) {
	b, err := io.ReadAll(archive)
	if err != nil {
		return nil, fmt.Errorf("read the archive: %w", err)
	}
	out := []spec.Image{}
	for _, ref := range strings.Fields(string(b)) {
		out = append(out, f.store(ref, int64(len(b))))
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("the archive has no image: %w", spec.ErrRefused)
	}
	return out, nil
}

// LoadRoom implements api.Backend. More than 1 GiB doesn't fit, more than 1 MiB
// fits after collecting.
func (f *Fake) LoadRoom(_ context.Context, layers []spec.MissingBlob) (string, error) {
	switch stored, _ := spec.Room(layers); {
	case stored > 1<<30:
		return "", fmt.Errorf("the archive doesn't fit: %w", spec.ErrRefused)
	case stored > 1<<20:
		return "collected 1.0 GiB of what nobody needs, to make room", nil
	}
	return "", nil
}

func (f *Fake) store(ref string, size int64) spec.Image {
	f.mu.Lock()
	defer f.mu.Unlock()
	img := spec.Image{Ref: ref, Digest: "sha256:" + strings.Repeat("cd", 32), Size: size, Created: f.Now.AddDate(0, 0, -2)}
	f.images = append(f.images, img)
	f.calls = append(f.calls, "store "+ref)
	return img
}

// RemoveImage implements api.Backend.
func (f *Fake) RemoveImage(_ context.Context, ref string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.IndexFunc(f.images, func(i spec.Image) bool { return i.Ref == ref })
	if i < 0 {
		return fmt.Errorf("image %q: %w", ref, spec.ErrNotFound)
	}
	f.images = slices.Delete(f.images, i, i+1)
	f.calls = append(f.calls, "rm "+ref)
	return nil
}

// Exec implements api.Backend. It knows a few commands: cat, echo, fail (to
// stderr), exit N, request (prints what was asked for), size (waits for one
// resize and prints it), sleep (until ctx ends), deaf (like sleep, and never
// reads its input).
func (f *Fake) Exec(ctx context.Context, r spec.ExecRequest, stdin io.Reader, stdout, stderr io.Writer, resize <-chan [2]uint16) (int, error) {
	args := r.Command[1:]
	switch r.Command[0] {
	case "cat":
		_, err := io.Copy(stdout, stdin)
		return 0, err
	case "echo":
		_, err := fmt.Fprintln(stdout, strings.Join(args, " "))
		return 0, err
	case "fail":
		_, err := fmt.Fprintln(stderr, strings.Join(args, " "))
		return 1, err
	case "exit":
		return strconv.Atoi(args[0])
	case "request":
		return 0, json.NewEncoder(stdout).Encode(r)
	case "size":
		select {
		case s := <-resize:
			_, err := fmt.Fprintf(stdout, "%d %d\n", s[0], s[1])
			return 0, err
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	case "sleep", "deaf":
		f.locked(func() { f.calls = append(f.calls, r.Command[0]+" begins") })
		<-ctx.Done()
		f.locked(func() { f.calls = append(f.calls, r.Command[0]+" ends") })
		return 0, ctx.Err()
	}
	return 127, fmt.Errorf("%s in %s: no such program: %w", r.Command[0], r.Replica, spec.ErrNotFound)
}
