package orchestrator

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"dunnage/spec"
)

// runsOther lists the versions that a desired release has of a secret where
// another one is current: a rollout of that failed, is yet to come, or somebody
// has rolled back past it.
func (l *Loop) runsOther(id spec.SecretID) []spec.SecretUse {
	now, ok := l.state.version(id, 0)
	if !ok {
		return nil
	}
	var out []spec.SecretUse
	for _, name := range l.state.projectNames() {
		r := l.present(name)
		if r == nil {
			continue
		}
		for _, p := range others(*r, spec.SecretPins{"": now.Pin()}) {
			out = append(out, spec.SecretUse{Project: name, Version: p.Version})
		}
	}
	return out
}

// others lists the versions that the release has of secrets of which another one
// is current.
func others(r spec.Release, current spec.SecretPins) []spec.SecretPin {
	var out []spec.SecretPin
	for _, s := range r.Project.Services {
		for _, p := range r.Pins(s) {
			for _, now := range current {
				if p.SecretID == now.SecretID && p != now && p.Version > 0 {
					out = append(out, p)
				}
			}
		}
	}
	slices.SortFunc(out, func(a, b spec.SecretPin) int {
		return cmp.Or(cmp.Compare(a.String(), b.String()), cmp.Compare(a.Version, b.Version))
	})
	return slices.Compact(out)
}

// staysCurrent adds to the cause of a failed rollout of secrets which of them stay
// current all the same, and what takes them back. Those that are still to be
// brought to the project aren't told of.
func (l *Loop) staysCurrent(op *operation, state spec.OperationState, cause string) string {
	r := l.present(op.Project)
	if op.Kind != renewal || r == nil || state != spec.OperationFailed && state != spec.OperationRolledBack {
		return cause
	}
	rec, _ := l.state.project(op.Project)
	current := l.state.currentPins(r.Project)
	maps.DeleteFunc(current, func(name string, p spec.SecretPin) bool {
		kept, _ := l.state.secret(p.SecretID)
		return rec.Secrets[name] != p || kept.Origin != spec.OriginSet
	})
	var told []spec.SecretID
	for _, p := range others(*r, current) {
		if slices.Contains(told, p.SecretID) {
			continue
		}
		told = append(told, p.SecretID)
		now, _ := l.state.version(p.SecretID, 0)
		cause += fmt.Sprintf("; version %d of %s stays current: `dunnage secret rollback %s` takes it back", now.Version, p.SecretID, p.SecretID)
	}
	return strings.TrimPrefix(cause, "; ")
}
