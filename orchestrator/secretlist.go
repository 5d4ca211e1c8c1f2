package orchestrator

import (
	"context"
	"fmt"
	"slices"

	"dunnage/spec"
)

// Secrets lists the secrets of a project, or all, and says whether they can be opened.
func (l *Loop) Secrets(_ context.Context, project string) ([]spec.SecretStatus, spec.KeyStatus, error) {
	var out []spec.SecretStatus
	for _, id := range l.state.secretIDs() {
		if project == "" || id.Project == project {
			out = append(out, l.secretStatus(id))
		}
	}
	return out, l.cfg.Vault.Look(), nil
}

func (l *Loop) secretStatus(id spec.SecretID) spec.SecretStatus {
	rec, _ := l.state.secret(id)
	now, _ := l.state.version(id, 0)
	s := spec.SecretStatus{SecretID: id, Origin: rec.Origin, Version: rec.Current, Created: now.Created, UsedBy: l.secretUsers(id), Behind: l.runsOther(id)}
	for _, v := range l.state.secretVersions(id) {
		s.Versions = append(s.Versions, v.Version)
	}
	return s
}

// secretUsers lists the services, "project/service", that a desired or good
// release gives the secret.
func (l *Loop) secretUsers(id spec.SecretID) []string {
	var out []string
	for _, name := range l.state.projectNames() {
		rec, _ := l.state.project(name)
		if rec.Down {
			continue
		}
		for _, n := range []int{rec.Desired, rec.Good} {
			r, ok := l.state.release(name, n)
			if !ok {
				continue
			}
			for _, s := range r.Project.Services {
				if slices.ContainsFunc(r.Pins(s), func(p spec.SecretPin) bool { return p.SecretID == id }) {
					out = append(out, name+"/"+s.Name)
				}
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// noSecret says that there is no such secret, and what is like it.
func (l *Loop) noSecret(id spec.SecretID) error {
	var names []string
	for _, other := range l.state.secretIDs() {
		names = append(names, other.String())
	}
	next := "`dunnage secret ls` lists them"
	if near := spec.Nearest(id.String(), names); near != "" {
		next = "did you mean " + near + "?"
	}
	return fmt.Errorf("secret %s: %w; %s", id, spec.ErrNotFound, next)
}
