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

// Missing is a MiB for what the registry has.
func (w *World) Missing(_ context.Context, ref string) (int64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.images[ref]; !ok {
		return 0, fmt.Errorf("ask the registry for %s: %w", ref, spec.ErrNotFound)
	}
	return 1 << 20, nil
}
