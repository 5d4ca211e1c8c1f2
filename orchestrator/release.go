package orchestrator

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"dunnage/spec"
)

// reasonDeploy is the reason of releases that come from a manifest.
const reasonDeploy = "deploy"

// candidate is a release that may become the desired one.
type candidate struct {
	release spec.Release // without number
	changes []spec.ServiceOutcome
	starts  []string // services that were stopped on request, and are no longer
	notes   []string
	bears   bearing         // to be saved with the release
	by      string          // who made the versions current that it is for
	current spec.SecretPins // the current versions, with what it bears; nil = those of the store
}

// propose makes what a deploy would make the desired release: the manifest,
// plus services that it no longer has unless they may go, and those whose
// profiles aren't active, with host ports and the images' own probes resolved.
// prev is the present release, if there is one.
func (l *Loop) propose(ctx context.Context, r spec.DeployRequest, images map[string]spec.PinnedImage, prev *spec.Release) (candidate, error) {
	c := candidate{release: spec.Release{Project: r.Project, Images: maps.Clone(images), Reason: reasonDeploy}}
	p := &c.release.Project
	p.Services = slices.Clone(p.Services)
	if prev != nil {
		rec, _ := l.state.project(p.Name)
		c.notes = append(c.notes, adopt(&c.release, *prev, r, rec.Stopped)...)
		for i := range p.Services {
			if old, ok := prev.Project.Service(p.Services[i].Name); ok {
				p.Services[i].Container.Epoch = old.Container.Epoch
			}
		}
	}
	for i := range p.Services {
		if r.Force && !p.Services[i].Orphan && !slices.Contains(r.Inactive, p.Services[i].Name) {
			p.Services[i].Container.Epoch++
		}
	}
	if err := l.resolveProbes(ctx, &c.release); err != nil {
		return c, err
	}
	if err := l.pinSecrets(&c, r.Secrets, r.Owner); err != nil {
		return c, err
	}
	if err := l.alloc.fit(*p); err != nil {
		return c, err
	}
	if err := l.resolvePorts(ctx, p); err != nil {
		return c, err
	}
	c.changes = compare(prev, c.release)
	if prev != nil {
		rec, _ := l.state.project(p.Name)
		c.starts = slices.DeleteFunc(slices.Clone(rec.Stopped), func(s string) bool { return slices.Contains(r.Inactive, s) })
		markStarts(c.changes, c.starts)
		c.notes = append(c.notes, keptLogging(*prev, c.release)...)
	}
	return c, nil
}

// markStarts says of services that a deploy only starts again that it does.
func markStarts(changes []spec.ServiceOutcome, starts []string) {
	for i, s := range changes {
		if slices.Contains(starts, s.Name) && (s.Change == spec.ChangeNone || s.Change == spec.ChangeOrphan) {
			changes[i].Change = spec.ChangeStart
		}
	}
}

// keptLogging tells of services that keep replicas whose log writer goes on with the
// options it was started with: it isn't worth replacing them for those.
func keptLogging(prev, next spec.Release) []string {
	var notes []string
	for _, s := range next.Project.Services {
		old, ok := prev.Project.Service(s.Name)
		if ok && old.Logging != s.Logging && old.Replicas > 0 && prev.Generation(s.Name) == next.Generation(s.Name) {
			notes = append(notes, fmt.Sprintf("service %s: its new logging options hold for replicas created from now on; `dunnage restart -p %s %s` replaces those that run", s.Name, next.Project.Name, s.Name))
		}
	}
	return notes
}

// adopt carries over the services of prev that next doesn't have but r wants kept,
// with the networks and volumes they use. Of those whose profile isn't active,
// stopped ones aren't told of.
func adopt(next *spec.Release, prev spec.Release, r spec.DeployRequest, stopped []string) []string {
	var notes []string
	p := &next.Project
	for _, s := range prev.Project.Services {
		inactive := slices.Contains(r.Inactive, s.Name)
		if _, ok := p.Service(s.Name); ok || r.RemoveOrphans && !inactive {
			continue
		}
		s.Orphan = !inactive
		p.Services = append(p.Services, s)
		next.Images[s.Name] = prev.Images[s.Name]
		switch {
		case !inactive:
			notes = append(notes, fmt.Sprintf("service %s isn't in the manifest any more and keeps running; --remove-orphans removes it", s.Name))
		case !slices.Contains(stopped, s.Name):
			notes = append(notes, fmt.Sprintf("service %s: its profile isn't active: it keeps running as it is; `dunnage stop -p %s %s` stops it", s.Name, p.Name, s.Name))
		}
		for _, name := range s.Container.SecretNames() {
			if _, ok := p.Secret(name); !ok {
				if d, ok := prev.Project.Secret(name); ok {
					p.Secrets = append(slices.Clone(p.Secrets), d)
				}
			}
		}
		for _, a := range s.Container.Networks {
			if _, ok := p.Network(a.Name); !ok {
				if n, ok := prev.Project.Network(a.Name); ok {
					p.Networks = append(slices.Clone(p.Networks), n)
				}
			}
		}
	}
	slices.SortFunc(p.Services, func(a, b spec.Service) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(p.Secrets, func(a, b spec.SecretDeclaration) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(p.Networks, func(a, b spec.Network) int { return strings.Compare(a.Name, b.Name) })
	return notes
}

// compare says what next does to each service of prev.
func compare(prev *spec.Release, next spec.Release) []spec.ServiceOutcome {
	var out []spec.ServiceOutcome
	for _, s := range next.Project.Services {
		out = append(out, spec.ServiceOutcome{Name: s.Name, Change: change(prev, next, s), Wanted: s.Replicas, Ports: s.Ports})
	}
	if prev == nil {
		return out
	}
	for _, s := range prev.Project.Services {
		if _, ok := next.Project.Service(s.Name); !ok {
			out = append(out, spec.ServiceOutcome{Name: s.Name, Change: spec.ChangeRemove})
		}
	}
	return out
}

func change(prev *spec.Release, next spec.Release, s spec.Service) spec.Change {
	if prev == nil {
		return spec.ChangeCreate
	}
	old, ok := prev.Project.Service(s.Name)
	switch {
	case !ok:
		return spec.ChangeCreate
	case s.Orphan:
		return spec.ChangeOrphan
	case prev.Generation(s.Name) != next.Generation(s.Name):
		return spec.ChangeReplace
	case old.Replicas != s.Replicas:
		return spec.ChangeScale
	case len(differing("", reflect.ValueOf(old), reflect.ValueOf(s))) > 0 || prev.SecretsFingerprint(old) != next.SecretsFingerprint(s):
		return spec.ChangeUpdate
	default:
		return spec.ChangeNone
	}
}

// differing lists the JSON names of the fields that differ, down to one level
// inside structs: "ports", "container.command".
func differing(prefix string, a, b reflect.Value) []string {
	var out []string
	for i := range a.NumField() {
		name, _, _ := strings.Cut(a.Type().Field(i).Tag.Get("json"), ",")
		x, y := a.Field(i), b.Field(i)
		switch {
		case reflect.DeepEqual(x.Interface(), y.Interface()), x.Kind() == reflect.Slice && x.Len() == 0 && y.Len() == 0:
		case x.Kind() == reflect.Struct && prefix == "":
			out = append(out, differing(name+".", x, y)...)
		default:
			out = append(out, prefix+name)
		}
	}
	return out
}

// unchanged reports whether the candidate is what prev is already.
func (c candidate) unchanged(prev *spec.Release) bool {
	if prev == nil {
		return false
	}
	if slices.ContainsFunc(c.changes, moves) {
		return false
	}
	return reflect.DeepEqual(prev.Project.Networks, c.release.Project.Networks) || len(prev.Project.Networks)+len(c.release.Project.Networks) == 0
}

// present is the project's desired release, nil if it has none or is down.
func (l *Loop) present(project string) *spec.Release {
	rec, ok := l.state.project(project)
	if !ok || rec.Down {
		return nil
	}
	r, ok := l.state.release(project, rec.Desired)
	if !ok {
		return nil
	}
	return &r
}

// install makes the release the desired one: number, subnets, addresses and
// record in one commit. Inactive services that are stopped stay so. It runs on
// the loop's goroutine.
func (l *Loop) install(op *operation, from candidate, inactive []string) (int, error) {
	r := from.release
	now := l.cfg.Clock.Now()
	name := r.Project.Name
	rec, ok := l.state.project(name)
	if !ok {
		rec = spec.ProjectRecord{Name: name, Next: 1}
	}
	if rec.Down {
		rec.Down, rec.Purge, rec.Forget, rec.Good, rec.Stopped, rec.Ailing = false, nil, false, 0, nil, nil
	}
	// A deploy starts what was stopped on request, unless it is inactive. Until it
	// has converged, that is remembered: a deploy that fails brings nobody's
	// broken service back.
	if r.Reason == reasonDeploy {
		rec.Held, rec.Stopped = rec.Stopped, kept(rec.Stopped, inactive)
	}
	var err error
	if rec.Networks, err = l.alloc.networks(rec, r.Project); err != nil {
		return 0, err
	}
	if rec.Addresses, err = l.alloc.leases(rec, r.Project, now); err != nil {
		return 0, err
	}
	rec.Ailing = l.ailing(op, rec, r.Project)
	rec = gaveUp(rec)
	r.Number, r.Created = rec.Next, now
	rec.Next++
	receipt := l.draft(op, &rec, r)
	rec.Desired, rec.Since, rec.Backward, rec.Paused, rec.Reached = r.Number, now, false, "", nil
	c := from.bears.commit
	if rec.Secrets = from.current; rec.Secrets == nil {
		rec.Secrets = l.state.currentPins(r.Project)
	}
	c.Releases, c.DropReleases = []spec.ReleaseRecord{{Project: name, Release: r}}, l.beyond(rec, l.cfg.KeepReleases-1)
	forgetReleases(&rec, c.DropReleases)
	c.Projects, c.Receipts = []spec.ProjectRecord{rec}, []spec.Receipt{receipt}
	if err := l.retain(name, r); err != nil {
		return 0, err
	}
	if err := l.saveAudited(c, from.bears.audit...); err != nil {
		return 0, err
	}
	l.receipts.begin(receipt)
	if err := l.pardon(name); err != nil {
		l.cfg.Log.Warn("let failed replicas begin anew", "project", name, "error", err) // they go on at their own pace
	}
	l.unpin(c.DropReleases)
	l.events.add(spec.Event{Kind: spec.EventRelease, Project: name, Message: fmt.Sprintf("release %d: %s", r.Number, r.Reason)})
	return r.Number, nil
}

// gaveUp is the record of a project that leaves its desired release: one that is paused
// because it failed has failed then.
func gaveUp(rec spec.ProjectRecord) spec.ProjectRecord {
	if rec.Paused != "" && rec.Paused != pausedByHand {
		rec.Failed = append(without(rec.Failed, rec.Desired), rec.Desired)
		rec.Causes = explained(rec.Causes, rec.Desired, rec.Paused)
	}
	return rec
}

// kept lists those of the stopped services that are inactive.
func kept(stopped, inactive []string) []string {
	return slices.DeleteFunc(slices.Clone(stopped), func(s string) bool { return !slices.Contains(inactive, s) })
}

// retain pins the release's images before the release is recorded, so that no
// recorded release is without them.
func (l *Loop) retain(project string, r spec.Release) error {
	var images []spec.PinnedImage
	for _, s := range r.Project.Services {
		images = append(images, r.Images[s.Name])
	}
	return unserved(l.pin(retainName(project, r.Number), images))
}

// pin is Retain with a deadline: the loop waits for it.
func (l *Loop) pin(name string, images []spec.PinnedImage) error {
	ctx, cancel := context.WithTimeout(l.ctx, lookTimeout)
	defer cancel()
	return l.cfg.Images.Retain(ctx, name, images)
}

func retainName(project string, number int) string {
	return fmt.Sprintf("%s-release-%d", project, number)
}

// explained is a copy of causes with that of release n; "" = it has none.
func explained(causes map[int]string, n int, cause string) map[int]string {
	out := map[int]string{}
	maps.Copy(out, causes)
	if cause == "" {
		delete(out, n)
	} else {
		out[n] = cause
	}
	return out
}

// beyond lists the releases before the newest keep ones, but for the good one,
// those that are warm and the ways back.
func (l *Loop) beyond(rec spec.ProjectRecord, keep int) []spec.ReleaseRecord {
	var out []spec.ReleaseRecord
	history := l.state.history(rec.Name)
	stay := append(l.waysBack(rec), rec.Good)
	for _, w := range rec.Warm {
		stay = append(stay, w.Release)
	}
	for _, r := range history[:max(0, len(history)-keep)] {
		if !slices.Contains(stay, r.Number) {
			out = append(out, spec.ReleaseRecord{Project: rec.Name, Release: r})
		}
	}
	return out
}

// waysBack lists what a rollback needs, however many releases have failed or only
// scaled since: the last two that ran, of which one isn't the desired one, and the
// last one that has an image which the newest of them hasn't.
func (l *Loop) waysBack(rec spec.ProjectRecord) (out []int) {
	var last spec.Release
	for _, n := range slices.Backward(rec.Ran) {
		r, kept := l.state.release(rec.Name, n)
		switch {
		case !kept:
		case len(out) == 0:
			last, out = r, []int{n}
		case otherImages(r, last):
			return append(out, n)
		case len(out) == 1:
			out = append(out, n)
		}
	}
	return out
}

// otherImages reports whether r has an image that from hasn't.
func otherImages(r, from spec.Release) bool {
	has := map[string]bool{}
	for _, i := range from.Images {
		has[i.Digest] = true
	}
	for _, i := range r.Images {
		if !has[i.Digest] {
			return true
		}
	}
	return false
}

// forgetReleases drops from a record what it says of releases that aren't kept.
func forgetReleases(rec *spec.ProjectRecord, old []spec.ReleaseRecord) {
	for _, r := range old {
		n := r.Release.Number
		rec.Ran, rec.Failed, rec.Left = without(rec.Ran, n), without(rec.Failed, n), without(rec.Left, n)
		rec.Causes = explained(rec.Causes, n, "")
	}
}

// unpin lets go of the images of releases that aren't kept. What fails is done
// at a later look.
func (l *Loop) unpin(old []spec.ReleaseRecord) {
	for _, r := range old {
		if err := l.pin(retainName(r.Project, r.Release.Number), nil); err != nil {
			l.cfg.Log.Warn("let go of an old release's images", "project", r.Project, "release", r.Release.Number, "error", err)
			l.letGone = false
		}
	}
	if len(old) > 0 {
		l.freeLater()
	}
}
