package orchestrator

import (
	"cmp"
	"context"
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

// bringAgain forgets that it was decided to leave projects with other versions of
// secrets that were set to what they are: whoever does that wants it everywhere.
// Records of projects are changed on the loop's goroutine only, so this isn't in
// one commit with the secrets, of which nothing but how many are kept has changed.
func (l *Loop) bringAgain(ctx context.Context, changes []spec.SecretChange) error {
	asked := map[spec.SecretID]bool{}
	for _, c := range changes {
		if c.Unchanged && len(l.runsOther(c.SecretID)) > 0 {
			asked[c.SecretID] = true
		}
	}
	if len(asked) == 0 {
		return nil
	}
	return l.do(ctx, func() error {
		var c spec.Commit
		for _, name := range l.state.projectNames() {
			r, rec := l.present(name), l.recordOf(name)
			if r == nil {
				continue
			}
			kept := maps.Clone(rec.Secrets)
			for key, p := range l.state.currentPins(r.Project) {
				if asked[p.SecretID] && len(others(*r, spec.SecretPins{key: p})) > 0 {
					delete(kept, key)
				}
			}
			if len(kept) < len(rec.Secrets) {
				rec.Secrets = kept
				c.Projects = append(c.Projects, rec)
			}
		}
		if len(c.Projects) == 0 {
			return nil
		}
		return l.state.save(c)
	})
}

// earlierSecrets says which services a release gives versions that aren't the
// current ones.
func (l *Loop) earlierSecrets(r spec.Release) []string {
	var out []string
	current := l.state.currentPins(r.Project)
	for _, s := range r.Project.Services {
		for _, name := range s.Container.SecretNames() {
			p, now := r.Secrets[s.Name][name], current[name]
			if p.Version > 0 && now.Version > 0 && p != now {
				out = append(out, fmt.Sprintf("%s gets version %d of the secret %s; the current one is %d", s.Name, p.Version, p.SecretID, now.Version))
			}
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
		cause += fmt.Sprintf("; version %d of %s stays current: `dunnage secret rollback %s --to %d` takes it back", now.Version, p.SecretID, p.SecretID, p.Version)
	}
	return strings.TrimPrefix(cause, "; ")
}
