package world

import (
	"context"
	"maps"
	"slices"

	"dunnage/spec"
)

// layerBytes is what a container has written over its image unless the test says
// otherwise.
const layerBytes = 4096

// WriteLayer sets how much a replica has written over its image.
func (w *World) WriteLayer(replica string, bytes int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.layers[replica] = bytes
}

// Use lists the writable layers, and what the test has put in Stored.
func (w *World) Use(context.Context) ([]spec.DiskItem, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead {
		return nil, ErrCrashed
	}
	if w.Hung {
		return nil, spec.ErrUnavailable
	}
	out := slices.Clone(w.Stored)
	for _, id := range slices.Sorted(maps.Keys(w.containers)) {
		c := w.containers[id]
		use := spec.DiskUse{Bytes: layerBytes, Inodes: 1}
		if b, ok := w.layers[id]; ok {
			use.Bytes = b
		}
		out = append(out, spec.DiskItem{Kind: spec.DiskWritable, Name: id, Project: c.key.Project, Service: c.key.Service, Holders: []string{id}, DiskUse: use})
	}
	return out, nil
}

// UseNow is Use: a world makes nobody wait.
func (w *World) UseNow(ctx context.Context, _ bool) ([]spec.DiskItem, error) { return w.Use(ctx) }

// Filesystems are what the test says.
func (w *World) Filesystems(context.Context) ([]spec.Filesystem, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.Disks), nil
}

// Collect removes what nobody holds of what the test has put in Stored.
func (w *World) Collect(_ context.Context, r spec.CollectRequest) (spec.Collection, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := spec.Collection{Waiting: slices.Clone(w.Waiting)}
	for i := range out.Waiting {
		out.Waiting[i].Until = out.Waiting[i].Until.Add(r.Grace - spec.ImageGrace)
	}
	if w.dead {
		return out, ErrCrashed
	}
	// It is no call that the world counts: it comes at any time, beside others.
	var stay []spec.DiskItem
	for _, i := range w.Stored {
		if len(i.Holders) > 0 || !i.Kind.Counted() {
			stay = append(stay, i)
			continue
		}
		out.Items = append(out.Items, i)
		out.Freed.Add(i.DiskUse)
	}
	if !r.Rehearse {
		w.Stored = stay
		if w.Collected != nil {
			w.Collected(out.Freed)
		}
		w.Collections = append(w.Collections, r)
	}
	return out, nil
}
