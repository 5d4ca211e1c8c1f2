package orchestrator

import (
	"errors"
	"fmt"
	"slices"

	"dunnage/spec"
)

// lacking says which secrets that the replica uses are gone from the store, as
// all are after ResetKey. It waits for them.
func (l *Loop) lacking(key spec.ReplicaKey) error {
	r, s, ok := l.releaseOf(key)
	if !ok {
		return nil
	}
	var errs []error
	for _, p := range r.Pins(s) {
		if p.Version > 0 && !l.state.keeps(p) {
			errs = append(errs, l.gone(r.Project, p))
		}
	}
	return errors.Join(errs...)
}

func (l *Loop) gone(project spec.Project, p spec.SecretPin) error {
	if _, ok := l.state.secret(p.SecretID); ok {
		return fmt.Errorf("version %d of the secret %s isn't in the store any more; the current one comes when all that the project lacks are set, or with a deploy", p.Version, p.SecretID)
	}
	brought := func(d spec.SecretDeclaration) bool { return d.Store == p.Name && d.Origin == spec.OriginManifest }
	if p.Project != "" && slices.ContainsFunc(project.Secrets, brought) {
		return fmt.Errorf("the secret %s isn't in the store; a deploy of project %s brings it", p.SecretID, p.Project)
	}
	return fmt.Errorf("the secret %s isn't in the store; `dunnage secret set %s` puts it there", p.SecretID, p.SecretID)
}
