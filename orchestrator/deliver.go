package orchestrator

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// releaseOf is the release whose secrets the replica gets, with its service in
// it: the desired one if the replica is of that, else the one to go back to, else
// the one that it was made for.
func (l *Loop) releaseOf(key spec.ReplicaKey) (spec.Release, spec.Service, bool) {
	rec, _ := l.state.project(key.Project)
	replica, _ := l.state.replica(key.ID)
	for _, n := range []int{rec.Desired, rec.Good, replica.Release} {
		r, ok := l.state.release(key.Project, n)
		if !ok || r.Generation(key.Service) != key.Generation {
			continue
		}
		if s, ok := r.Project.Service(key.Service); ok {
			return r, s, true
		}
	}
	return spec.Release{}, spec.Service{}, false
}

// reads is the audit of a delivery, written before anything is opened.
func (l *Loop) reads(key spec.ReplicaKey) []spec.AuditEntry {
	r, s, ok := l.releaseOf(key)
	if !ok {
		return nil
	}
	var out []spec.AuditEntry
	for _, name := range s.Container.SecretNames() {
		if p, ok := r.Secrets[s.Name][name]; ok {
			out = append(out, spec.AuditEntry{Kind: spec.AuditDeliver, Secret: p.SecretID.String(), Version: p.Version, Replica: key.ID})
		}
	}
	return out
}

// user is what a container's files belong to, unless they say otherwise.
type user func() (uid, gid uint32, err error)

// user asks the engine at once, and waits for the answer when it is needed.
func (l *Loop) user(ctx context.Context, id string) user {
	type answer struct {
		uid, gid uint32
		err      error
	}
	answers := make(chan answer, 1)
	go func() {
		var a answer
		a.uid, a.gid, a.err = l.cfg.Engine.User(ctx, id)
		answers <- a
	}()
	return func() (uid, gid uint32, err error) {
		a := <-answers
		return a.uid, a.gid, a.err
	}
}

// deliver opens what the replica uses and puts it on its tmpfs.
func (l *Loop) deliver(ctx context.Context, key spec.ReplicaKey, owner user, swapped func() error) error {
	r, s, ok := l.releaseOf(key)
	if !ok || len(s.Container.Secrets) == 0 {
		return nil
	}
	l.vault.RLock()
	defer l.vault.RUnlock()
	values := map[string]spec.SecretValue{}
	defer func() {
		for _, v := range values {
			v.Clear()
		}
	}()
	for _, name := range s.Container.SecretNames() {
		p, ok := r.Secrets[s.Name][name]
		if !ok {
			continue // optional, and not there
		}
		var err error
		if values[name], err = l.open(p); err != nil {
			return err
		}
	}
	uid, gid, err := owner()
	if err != nil {
		return err
	}
	d := spec.Delivery{Replica: key.ID, Fingerprint: r.SecretsFingerprint(s), UID: uid, GID: gid}
	fill(&d, s.Container, values)
	defer func() { // configs have values in them, too
		for _, f := range d.Files {
			f.Value.Clear()
		}
	}()
	if err := l.cfg.Secrets.Deliver(ctx, d, swapped); err != nil {
		return fmt.Errorf("deliver secrets: %w", err)
	}
	return nil
}

// fill is what a container gets of the values; one that is missing leaves its
// file and its variable out, and its place in a config empty.
func fill(d *spec.Delivery, c spec.Container, values map[string]spec.SecretValue) {
	id := func(own *uint32, user uint32) uint32 {
		if own != nil {
			return *own
		}
		return user
	}
	for _, s := range c.Secrets {
		v, ok := values[s.Name]
		if !ok {
			continue
		}
		if s.Target != "" {
			d.Files = append(d.Files, spec.DeliveredFile{Target: s.Target, Value: v, UID: id(s.UID, d.UID), GID: id(s.GID, d.GID), Mode: s.Mode})
		}
		if s.Env != "" {
			d.Env = append(d.Env, spec.DeliveredEnv{Name: s.Env, Value: v})
		}
	}
	for _, f := range c.Files {
		if f.Template {
			value := spec.FillTemplate(f.Content, func(name string) spec.SecretValue { return values[name] })
			uid, gid := f.Owner(d.UID, d.GID)
			d.Files = append(d.Files, spec.DeliveredFile{Target: f.Target, Value: value, UID: uid, GID: gid, Mode: f.Mode})
		}
	}
	slices.SortFunc(d.Files, func(a, b spec.DeliveredFile) int { return strings.Compare(a.Target, b.Target) })
	slices.SortFunc(d.Env, func(a, b spec.DeliveredEnv) int { return strings.Compare(a.Name, b.Name) })
}

// redeliver swaps the files of a running replica and tells its process. If the
// agent dies before that is noted, both happen again.
func (l *Loop) redeliver(ctx context.Context, a plan.Deliver) error {
	owner := l.user(ctx, a.Key.ID)
	if err := l.saveAudited(spec.Commit{}, l.reads(a.Key)...); err != nil {
		return err
	}
	return l.deliver(ctx, a.Key, owner, func() error {
		sees, err := l.cfg.Secrets.Reaches(a.Key.ID, a.Pid)
		if err != nil {
			return err
		}
		if !sees {
			return fmt.Errorf("the tmpfs that its container was started with is gone, so no new version reaches it; `dunnage restart -p %s %s` starts it with another", a.Key.Project, a.Key.Service)
		}
		if a.Signal == "" {
			return nil
		}
		return gone(l.cfg.Engine.Signal(ctx, a.Key.ID, a.Signal))
	})
}
