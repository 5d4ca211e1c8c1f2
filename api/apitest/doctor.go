package apitest

import (
	"context"
	"slices"

	"dunnage/spec"
)

// SetFindings sets what Examine finds; what has a Fix is gone after one with fix.
func (f *Fake) SetFindings(all ...spec.Finding) { f.locked(func() { f.findings = all }) }

// Examine implements api.Backend.
func (f *Fake) Examine(_ context.Context, fix bool) ([]spec.Finding, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := slices.Clone(f.findings)
	if !fix {
		return out, nil
	}
	for i := range out {
		if out[i].Fix != "" {
			out[i] = spec.Finding{Check: out[i].Check, OK: true, Text: "removed: " + out[i].Fix}
		}
	}
	f.findings = slices.DeleteFunc(f.findings, func(x spec.Finding) bool { return x.Fix != "" })
	return out, nil
}
