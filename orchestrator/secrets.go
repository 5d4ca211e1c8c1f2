package orchestrator

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"dunnage/spec"
)

// secretID is what a declaration means now: a secret of the project's own goes
// before one of the host.
func (s *state) secretID(project string, d spec.SecretDeclaration) spec.SecretID {
	own := spec.SecretID{Project: project, Name: d.Store}
	if _, ok := s.secret(own); ok || d.Origin == spec.OriginManifest {
		return own
	}
	return spec.SecretID{Name: d.Store}
}

func (s *state) secret(id spec.SecretID) (spec.SecretRecord, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rec, ok := s.secrets[id]
	return rec, ok
}

// version is a kept version of a secret; number 0 is the current one.
func (s *state) version(id spec.SecretID, number int) (spec.SecretVersion, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if number == 0 {
		number = s.secrets[id].Current
	}
	for _, v := range s.versions[id] {
		if v.Version == number {
			return v, true
		}
	}
	return spec.SecretVersion{}, false
}

// keeps reports whether what the pin names is there.
func (s *state) keeps(p spec.SecretPin) bool {
	v, ok := s.version(p.SecretID, p.Version)
	return ok && v.Pin() == p
}

// currentPins are the current versions of what the project declares, as far as
// there are any.
func (s *state) currentPins(p spec.Project) spec.SecretPins {
	pins := spec.SecretPins{}
	for _, d := range p.Secrets {
		if v, ok := s.version(s.secretID(p.Name, d), 0); ok {
			pins[d.Name] = v.Pin()
		}
	}
	return pins
}

// pinned is the release with these versions instead of those that it has, as
// far as its services use them.
func pinned(r spec.Release, pins spec.SecretPins) spec.Release {
	all := map[string]spec.SecretPins{}
	for _, s := range r.Project.Services {
		own := maps.Clone(r.Secrets[s.Name])
		for _, name := range s.Container.SecretNames() {
			if p, ok := pins[name]; ok {
				if own == nil {
					own = spec.SecretPins{}
				}
				own[name] = p
			}
		}
		if own != nil {
			all[s.Name] = own
		}
	}
	r.Secrets = all
	return r
}

// hasSecrets reports whether there is any.
func (s *state) hasSecrets() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.secrets) > 0
}

// pinSecrets gives the candidate the versions of its secrets: the current ones
// and, of those that the manifest brings, new ones where the value is another.
// Called with l.vault held.
func (l *Loop) pinSecrets(c *candidate, values map[string]spec.SecretValue, by string) error {
	p := c.release.Project
	c.release.Secrets = nil
	if len(p.Secrets) == 0 {
		return nil
	}
	if l.cfg.Vault.Status().Locked != "" {
		if locked := l.cfg.Vault.Look().Locked; locked != "" {
			return errors.Join(fmt.Errorf("project %s uses secrets, and %s", p.Name, locked), spec.ErrUnavailable)
		}
	}
	pins := l.state.currentPins(p)
	var errs []error
	for _, d := range p.Secrets {
		if value, ok := values[d.Name]; ok && d.Origin == spec.OriginManifest {
			pin, err := l.bring(&c.bears, spec.SecretID{Project: p.Name, Name: d.Store}, value, by)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			pins[d.Name] = pin
		}
		if _, ok := pins[d.Name]; !ok && !d.Optional {
			errs = append(errs, l.missingSecret(p, d))
		}
	}
	c.release = pinned(c.release, pins)
	c.bears.audit = append(c.bears.audit, l.expire(&c.bears.commit)...)
	c.current = pins
	return refused(errs)
}

func (l *Loop) missingSecret(p spec.Project, d spec.SecretDeclaration) error {
	var users []string
	for _, s := range p.Services {
		if slices.Contains(s.Container.SecretNames(), d.Name) {
			users = append(users, s.Name)
		}
	}
	var names []string // of secrets that the project may use
	for _, id := range l.state.secretIDs() {
		if id.Project == "" || id.Project == p.Name {
			names = append(names, id.Name)
		}
	}
	near := spec.Nearest(d.Store, names)
	if near != "" {
		near = "did you mean " + near + "? Else "
	}
	return fmt.Errorf("service %s: the secret %s isn't in the store; %s`dunnage secret set %s` puts it there", strings.Join(users, ", "), d.Store, near, d.Store)
}

// bearing is what a candidate brings to the store beside itself.
type bearing struct {
	commit spec.Commit
	audit  []spec.AuditEntry
}

// bring adds the value that a manifest has for a secret, unless it is the
// current one.
func (l *Loop) bring(b *bearing, id spec.SecretID, value spec.SecretValue, by string) (spec.SecretPin, error) {
	rec, ok := l.state.secret(id)
	switch {
	case ok && rec.Origin != spec.OriginManifest:
		return spec.SecretPin{}, fmt.Errorf("the secret %s was set by hand and the manifest has a value for it too; declare it as external, or `dunnage secret rm -p %s %s`", id, id.Project, id.Name)
	case !ok:
		rec = spec.SecretRecord{SecretID: id, Origin: spec.OriginManifest, Next: 1}
	}
	v, unchanged, err := l.sealNext(&rec, value)
	if err != nil || unchanged {
		return v.Pin(), err
	}
	rec.By = by
	b.commit.Secrets, b.commit.Versions = append(b.commit.Secrets, rec), append(b.commit.Versions, v)
	b.audit = append(b.audit, spec.AuditEntry{Kind: spec.AuditSet, Secret: id.String(), Version: v.Version, User: by, Detail: "from the manifest"})
	return v.Pin(), nil
}

// sealNext makes value the next version of a secret and that its current one,
// or returns the current one if it has the value already.
func (l *Loop) sealNext(rec *spec.SecretRecord, value spec.SecretValue) (v spec.SecretVersion, unchanged bool, err error) {
	if err := errors.Join(spec.CheckSecretName(rec.Name), value.Check()); err != nil {
		return v, false, fmt.Errorf("secret %s: %w", rec.SecretID, err)
	}
	if now, ok := l.state.version(rec.SecretID, 0); ok {
		same, err := l.hasValue(now, value)
		if same || errors.Is(err, spec.ErrUnavailable) {
			return now, same, err
		}
		// One that can't be opened any more is replaced: there is no other way out.
	}
	v = spec.SecretVersion{SecretID: rec.SecretID, Version: rec.Next, Nonce: l.cfg.Nonce(), Created: l.cfg.Clock.Now(), Before: rec.Current}
	if v.Sealed, err = l.cfg.Vault.Seal(v, value); err != nil {
		return v, false, err
	}
	rec.Current, rec.Next = rec.Next, rec.Next+1
	return v, false, nil
}

// hasValue reports whether the version is that value.
func (l *Loop) hasValue(v spec.SecretVersion, value spec.SecretValue) (bool, error) {
	opened, err := l.open(v.Pin())
	if err != nil {
		return false, err
	}
	defer opened.Clear()
	return opened.Equal(value), nil
}

func (l *Loop) open(p spec.SecretPin) (spec.SecretValue, error) {
	v, err := l.cfg.Store.Sealed(p)
	if err != nil {
		return spec.SecretValue{}, fmt.Errorf("secret %s version %d: %w", p.SecretID, p.Version, err)
	}
	return l.cfg.Vault.Open(v)
}

// lostPins refuses a release whose secrets aren't kept any more.
func (l *Loop) lostPins(r spec.Release) error {
	var errs []error
	for _, s := range r.Project.Services {
		for _, p := range r.Pins(s) {
			if p.Version > 0 && !l.state.keeps(p) {
				errs = append(errs, fmt.Errorf("service %s: release %d has version %d of the secret %s, which isn't kept any more; a deploy of its manifest takes the current one", s.Name, r.Number, p.Version, p.SecretID))
			}
		}
	}
	return refused(errs)
}

// canOpen refuses a release for which secrets have to be opened while they are locked:
// it could only fail later.
func (l *Loop) canOpen(prev *spec.Release, next spec.Release) error {
	locked := l.cfg.Vault.Status().Locked
	if locked == "" {
		return nil
	}
	for _, c := range compare(prev, next) {
		s, ok := next.Project.Service(c.Name)
		if !ok || !slices.ContainsFunc(next.Pins(s), func(p spec.SecretPin) bool { return p.Version > 0 }) {
			continue
		}
		opens := c.Change == spec.ChangeCreate || c.Change == spec.ChangeReplace
		if prev != nil {
			old, _ := prev.Project.Service(c.Name)
			opens = opens || s.Replicas > old.Replicas || prev.SecretsFingerprint(old) != next.SecretsFingerprint(s)
		}
		if opens {
			return errors.Join(fmt.Errorf("service %s uses secrets, and %s", c.Name, locked), spec.ErrUnavailable)
		}
	}
	return nil
}

// renewal is the kind of operations that bring new versions of secrets.
const renewal = "secret"

// renewRetry is how long a project whose new versions couldn't be brought in, for
// want of space on the disk, say, waits for the next try.
const renewRetry = 10 * time.Second

// renew brings the current versions to each project that has yet to get them, by
// an operation that waits for that or by a new one, and reports whether another
// release is desired now. A project that is busy or stands still gets them after.
// It runs on the loop's goroutine.
func (l *Loop) renew() (changed bool) {
	for _, op := range l.ops.turns(renewal) {
		changed = l.renewFor(op) || changed
	}
	if !l.state.hasSecrets() || l.cfg.Vault.Status().Locked != "" {
		return changed
	}
	now := l.cfg.Clock.Now()
	for _, name := range l.state.projectNames() {
		prev, rec := l.present(name), l.recordOf(name)
		if prev == nil || rec.Paused != "" || now.Before(l.renewing[name]) || l.ops.busy(name) {
			continue
		}
		if next, ok := l.renewed(*prev, rec); ok {
			changed = l.bringIn(l.ops.begin(name, renewal, "", spec.OperationRolling), *prev, next) || changed
		}
	}
	return changed
}

func (l *Loop) recordOf(project string) spec.ProjectRecord {
	rec, _ := l.state.project(project)
	return rec
}

// renewed is the release with the versions that nobody has decided about yet.
// Others may be where a rollback has left them.
func (l *Loop) renewed(prev spec.Release, rec spec.ProjectRecord) (candidate, bool) {
	if len(prev.Project.Secrets) == 0 {
		return candidate{}, false
	}
	var words, by []string
	fresh := spec.SecretPins{}
	current := l.state.currentPins(prev.Project)
	for _, name := range slices.Sorted(maps.Keys(current)) {
		if p := current[name]; rec.Secrets[name] != p {
			fresh[name] = p
			words = append(words, fmt.Sprintf("%s version %d", p.SecretID, p.Version))
			if s, _ := l.state.secret(p.SecretID); s.By != "" && !slices.Contains(by, s.By) {
				by = append(by, s.By)
			}
		}
	}
	next := pinned(prev, fresh)
	if l.lostPins(next) != nil { // it needs others too that were given up: see ResetKey
		return candidate{}, false
	}
	next.Reason = "secret " + strings.Join(words, ", ")
	return candidate{release: next, current: current, by: strings.Join(by, ", ")}, len(words) > 0
}

// bringIn reports whether the release is desired now.
func (l *Loop) bringIn(op *operation, prev spec.Release, next candidate) bool {
	l.ops.change(op, func(o *operation) {
		o.State, o.Owner, o.Services = spec.OperationRolling, next.by, compare(&prev, next.release)
	})
	err := l.roll(op, next, nil)
	if err != nil {
		l.renewing[op.Project] = l.cfg.Clock.Now().Add(renewRetry)
		l.end(op, spec.OperationFailed, plain(err)+"; the new versions are kept, and the agent tries again", nil)
	}
	return err == nil
}

// renewFor is for an operation that waited until what was at work on the project
// had ended. That may have brought the versions too, or tried.
func (l *Loop) renewFor(op *operation) (changed bool) {
	prev, rec := l.present(op.Project), l.recordOf(op.Project)
	switch {
	case prev == nil:
		l.end(op, spec.OperationUnchanged, "the project is down: a deploy takes the current versions", nil)
		return false
	case rec.Paused != "":
		l.end(op, spec.OperationPaused, "the project gets the current versions when its rollout goes on", nil)
		return false
	}
	if next, ok := l.renewed(*prev, rec); ok {
		return l.bringIn(op, *prev, next)
	}
	if l.lostPins(*prev) != nil {
		l.end(op, spec.OperationFailed, fmt.Sprintf("the project lacks other secrets too, and gets all when they are set; `dunnage ps -p %s` names them", op.Project), nil)
		return false
	}
	if behind := outdatedPins(*prev, l.state.currentPins(prev.Project)); len(behind) > 0 {
		l.end(op, spec.OperationFailed, "the current versions were tried, and the release that runs has "+strings.Join(behind, ", "), nil)
	} else {
		l.rest(op, rec.Desired)
	}
	return false
}

// outdatedPins lists the versions of a release that aren't the current ones.
func outdatedPins(r spec.Release, current spec.SecretPins) []string {
	var out []string
	for _, s := range r.Project.Services {
		for _, name := range s.Container.SecretNames() {
			if p, now := r.Secrets[s.Name][name], current[name]; p != now && p.Version > 0 {
				out = append(out, fmt.Sprintf("version %d of %s", p.Version, p.SecretID))
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
