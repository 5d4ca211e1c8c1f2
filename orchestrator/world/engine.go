package world

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"dunnage/spec"
)

// Instances lists the containers.
func (w *World) Instances(context.Context) ([]spec.Instance, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead {
		return nil, ErrCrashed
	}
	if w.Hung {
		return nil, spec.ErrUnavailable
	}
	var out []spec.Instance
	for _, id := range slices.Sorted(maps.Keys(w.containers)) {
		c := w.containers[id]
		if w.Lie == LieOldGone && !c.stopping.IsZero() {
			continue
		}
		i := spec.Instance{ReplicaKey: c.key, Image: c.req.Image.Pinned(), Phase: c.phase, Limits: c.req.Limits.Fingerprint()}
		switch c.phase {
		case spec.PhaseRunning:
			i.Pid, i.StartedAt = 1000, c.started
		case spec.PhaseExited:
			i.StartedAt, i.ExitedAt, i.ExitCode = c.started, c.exited, c.code
		}
		out = append(out, i)
	}
	return out, nil
}

// Runs reports whether the container has a process.
func (w *World) Runs(id string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.containers[id]
	return c != nil && c.phase == spec.PhaseRunning
}

// Create makes a container.
func (w *World) Create(_ context.Context, r spec.CreateRequest) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	effect, err := w.call("create %s", r.ID)
	if effect && w.Full && w.containers[r.ID] == nil {
		return fmt.Errorf("create %s: %w: %d", r.ID, spec.ErrNoSpace, w.calls) // another path each time
	}
	if effect && w.containers[r.ID] == nil {
		w.containers[r.ID] = &container{key: r.ReplicaKey, req: r, phase: spec.PhaseCreated}
	}
	return err
}

// Start gives a container a process.
func (w *World) Start(_ context.Context, id string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.containers[id]
	if c == nil {
		return spec.ErrNotFound
	}
	effect, err := w.call("start %s", id)
	if !effect || c.phase == spec.PhaseRunning {
		return err
	}
	if w.Full {
		c.phase = spec.PhaseCreated // the trace of the run before is deleted first
		return fmt.Errorf("start %s: %w: %d", id, spec.ErrNoSpace, w.calls)
	}
	if w.attached[strings.TrimPrefix(c.req.NetNS, namespaces)] == nil {
		return fmt.Errorf("start %s: no network namespace", id)
	}
	if len(c.req.Container.Secrets) > 0 && w.delivered[id] == "" {
		w.violate("%s starts without its secrets", id)
	}
	for _, other := range w.containers {
		if other != c && other.phase == spec.PhaseRunning && other.key.Service == c.key.Service &&
			other.key.Project == c.key.Project && other.key.Generation != c.key.Generation && c.req.Container.Writable() && other.req.Container.Writable() {
			w.violate("%s starts while %s may still write to its volume", id, other.key.ID)
		}
	}
	c.phase, c.started, c.stopping, c.killed = spec.PhaseRunning, w.now, time.Time{}, false
	return err
}

// Limit changes the limits of a container. An odd number of pids is what a
// process has too many of.
func (w *World) Limit(_ context.Context, id string, l spec.Limits) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.containers[id]
	if c == nil {
		return spec.ErrNotFound
	}
	effect, err := w.call("limit %s", id)
	if effect && c.phase == spec.PhaseRunning && l.Pids%2 == 1 {
		return fmt.Errorf("limit %s: too low: %w", id, spec.ErrRefused)
	}
	if effect {
		c.req.Limits = l
	}
	return err
}

// Signal tells a process to end.
func (w *World) Signal(_ context.Context, id, sig string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.containers[id]
	if c == nil {
		return spec.ErrNotFound
	}
	effect, err := w.call("signal %s %s", id, sig)
	if !effect || c.phase != spec.PhaseRunning {
		return err
	}
	if sig != "" && sig != "SIGKILL" { // it tells of something
		return err
	}
	w.checkUnused(c)
	if sig == "SIGKILL" {
		c.killed = true
		w.live(c)
	} else if c.stopping.IsZero() {
		c.stopping = w.now
		w.live(c)
	}
	return err
}

// checkUnused notes what a signal would break.
func (w *World) checkUnused(c *container) {
	for _, s := range w.kernel.Services {
		for _, b := range s.Backends {
			if b.Replica == c.key.ID {
				w.violate("%s is signalled while rules send connections to it", c.key.ID)
			}
		}
	}
	w.checkJoined(c)
	for _, x := range w.conns {
		if x.owner != c.key.ID && !w.superseded(c) {
			continue // somebody asked for it alone to stop
		}
		drain := w.drain(c, w.state.replicas[x.owner].Drain.Std())
		if x.replica == c.key.ID && c.stopping.IsZero() && w.now.Before(x.unroutedAt.Add(drain)) {
			w.violate("%s is signalled %s after its rules went, with a connection that had %s", c.key.ID, w.now.Sub(x.unroutedAt), drain)
		}
	}
}

// Remove deletes a container.
func (w *World) Remove(_ context.Context, id string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.containers[id]
	if c == nil {
		return spec.ErrNotFound
	}
	effect, err := w.call("remove %s", id)
	if effect {
		if c.phase == spec.PhaseRunning {
			w.checkUnused(c)
			w.exit(c, 137)
		}
		delete(w.containers, id)
		delete(w.layers, id)
	}
	return err
}

// Tail says of a replica how its runs ended.
func (w *World) Tail(_ context.Context, r spec.ReplicaKey, since time.Time, lines int) ([]string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for _, l := range w.wrote[r.ID] {
		if !l.At.Before(since) {
			out = append(out, string(l.Text))
		}
	}
	return out[max(0, len(out)-lines):], nil
}

// Changes never sends: the tests step the loop themselves.
func (w *World) Changes(ctx context.Context) <-chan struct{} {
	ch := make(chan struct{})
	context.AfterFunc(ctx, func() { close(ch) })
	return ch
}

// Resolve finds every image whose behaviour is known: the reference is the digest.
func (w *World) Resolve(_ context.Context, ref string) (spec.PinnedImage, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for digest := range w.images {
		if ref == digest || ref == (spec.PinnedImage{Ref: digest, Digest: digest}).Pinned() {
			return spec.PinnedImage{Ref: digest, Digest: digest}, nil
		}
	}
	return spec.PinnedImage{}, fmt.Errorf("image %s: %w", ref, spec.ErrNotFound)
}

// Hold finds what Resolve finds.
func (w *World) Hold(ctx context.Context, _, ref string) (spec.PinnedImage, error) {
	return w.Resolve(ctx, ref)
}

// Healthcheck is what the test says.
func (w *World) Healthcheck(_ context.Context, digest string) (*spec.Probe, error) {
	if p, ok := w.Healthchecks[digest]; ok {
		return &p, nil
	}
	return nil, nil
}

// Pull finds what Resolve finds.
func (w *World) Pull(ctx context.Context, ref string, _ func(spec.PullProgress)) (spec.PinnedImage, error) {
	return w.Resolve(ctx, ref)
}

// Retain, Load and RemoveImage have nothing to do here: images in a world are
// always there.
func (w *World) Retain(context.Context, string, []spec.PinnedImage) error { return nil }

// Retained lists nothing.
func (w *World) Retained(context.Context) ([]string, error) { return nil, nil }

// Doubtful lists nothing: nobody cuts the power of a world.
func (w *World) Doubtful() []spec.DoubtfulImage { return nil }

// Verify finds nothing to mend.
func (w *World) Verify(context.Context, string) ([]string, error) { return nil, nil }

// Load does nothing.
func (w *World) Load(context.Context, io.Reader) ([]spec.Image, error) { return nil, nil }

// NewLayers are those that no stored item is named after.
func (w *World) NewLayers(_ context.Context, layers []spec.MissingBlob) (out []spec.MissingBlob, _ error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range layers {
		if !slices.ContainsFunc(w.Stored, func(i spec.DiskItem) bool { return i.Name == l.Digest }) {
			out = append(out, l)
		}
	}
	return out, nil
}

// ListImages lists the images whose behaviour is known.
func (w *World) ListImages(context.Context) ([]spec.Image, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []spec.Image
	for _, digest := range slices.Sorted(maps.Keys(w.images)) {
		out = append(out, spec.Image{Ref: digest, Digest: digest})
	}
	return out, nil
}

// RemoveImage does nothing.
func (w *World) RemoveImage(context.Context, string) error { return nil }

// VolumeExists says yes.
func (w *World) VolumeExists(context.Context, string) (bool, error) { return true, nil }

// RemoveVolume does nothing.
func (w *World) RemoveVolume(context.Context, string) error { return nil }
