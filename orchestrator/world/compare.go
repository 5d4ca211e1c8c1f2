package world

import (
	"context"
	"fmt"

	"dunnage/spec"
)

// Compare counts as Written does.
func (w *World) Compare(from, to spec.Routing) (spec.RuleDiff, error) {
	return spec.RuleDiff{RuleChange: difference(from, to).Rules}, nil
}

// Missing is a MiB for what the registry has, unless the test says otherwise.
func (w *World) Missing(_ context.Context, ref string) ([]spec.MissingBlob, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.images[ref]; !ok {
		return nil, fmt.Errorf("ask the registry for %s: %w", ref, spec.ErrNotFound)
	}
	if b, ok := w.Blobs[ref]; ok {
		return b, nil
	}
	return []spec.MissingBlob{{Digest: ref, Size: 1 << 20, Unpacked: 3 << 20}}, nil
}
