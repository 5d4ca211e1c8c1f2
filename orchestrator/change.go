package orchestrator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"dunnage/spec"
)

func previews(prev *spec.Release, c candidate) []spec.ServicePreview {
	var out []spec.ServicePreview
	for _, ch := range c.changes {
		next, _ := c.release.Project.Service(ch.Name)
		p := spec.ServicePreview{Name: ch.Name, Change: ch.Change, Order: next.Update.Order, To: next.Replicas}
		if prev != nil {
			if old, ok := prev.Project.Service(ch.Name); ok {
				p.From = old.Replicas
				if slices.Contains(c.starts, ch.Name) {
					p.From = 0 // stopped on request
				}
				if ch.Change != spec.ChangeRemove {
					p.Changed = changedKeys(old, next)
				}
				if ch.Change != spec.ChangeRemove && prev.Images[ch.Name].Digest != c.release.Images[ch.Name].Digest && !slices.Contains(p.Changed, "image") {
					p.Changed = append(p.Changed, "image digest")
				}
				p.Changed = append(p.Changed, otherSecrets(prev.Secrets[ch.Name], c.release.Secrets[ch.Name])...)
				if ch.Change == spec.ChangeStart {
					p.Changed = append(p.Changed, "stopped on request")
				}
			}
		}
		out = append(out, p)
	}
	return sharingReasons(out, c.release.Project)
}

// otherSecrets lists the secrets of which a service gets another version: "secret
// db-password 17 -> 18".
func otherSecrets(old, next spec.SecretPins) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(next)) {
		p, before := next[name], old[name]
		switch {
		case before == p:
		case before.Version == 0:
			out = append(out, fmt.Sprintf("secret %s -> %d", p.SecretID, p.Version))
		case before.SecretID != p.SecretID:
			out = append(out, fmt.Sprintf("secret %s %d -> %s %d", before.SecretID, before.Version, p.SecretID, p.Version))
		default:
			out = append(out, fmt.Sprintf("secret %s %d -> %d", p.SecretID, before.Version, p.Version))
		}
	}
	return out
}

// sharingReasons adds to services that are replaced for nothing of their own
// with whom they share the network, and so are replaced.
func sharingReasons(all []spec.ServicePreview, p spec.Project) []spec.ServicePreview {
	owner := func(name string) string {
		s, _ := p.Service(name)
		return cmp.Or(s.Container.Joins, name)
	}
	out := slices.Clone(all)
	for i, s := range out {
		if s.Change != spec.ChangeReplace || len(s.Changed) > 0 {
			continue
		}
		for _, o := range all {
			if o.Change == spec.ChangeReplace && len(o.Changed) > 0 && owner(o.Name) == owner(s.Name) {
				out[i].Changed = append(out[i].Changed, "network shared with "+o.Name)
			}
		}
	}
	return out
}

// Change starts an operation on a deployed project.
func (l *Loop) Change(ctx context.Context, project string, r spec.ChangeRequest) (spec.Operation, error) {
	var op *operation
	err := l.do(ctx, func() error {
		if err := l.mayChange(); err != nil {
			return err
		}
		prev := l.present(project)
		if prev == nil && r.Kind != "rollback" && !(r.Kind == "down" && l.leaves(project, r)) {
			return l.noProject(project)
		}
		if err := l.known(prev, r); err != nil {
			return err
		}
		if r.Kind == "rollback" { // before it takes the place of what is at work
			if _, _, err := l.target(project, r.Release); err != nil {
				return err
			}
		}
		var err error
		if op, err = l.take(project, r.Kind, turn(r), spec.OperationRolling); err != nil {
			return err
		}
		if overrides(r.Kind) || r.TakeOver {
			l.makeRoom(op)
		}
		if op.State == spec.OperationWaiting {
			l.jobs.Go(func() { l.changeLater(op, project, r) })
			return nil
		}
		if err = l.change(op, project, prev, r); err != nil {
			l.end(op, spec.OperationFailed, plain(err), nil)
		}
		l.Look()
		return err
	})
	if err != nil {
		return spec.Operation{}, err
	}
	return l.ops.copyOf(op), nil
}

// overrides reports whether a change ends what else is at work on the project:
// the ways out of a bad deploy do.
func overrides(kind string) bool { return kind == "rollback" || kind == "down" || kind == "stop" }

// turn is how the change stands to others: the ways out take over, and steering
// a rollout is part of it.
func turn(r spec.ChangeRequest) spec.Turn {
	t := r.Turn
	t.TakeOver = t.TakeOver || overrides(r.Kind) || slices.Contains([]string{"pause", "resume", "promote", "start"}, r.Kind)
	return t
}

// changeLater makes the change when it is its turn.
func (l *Loop) changeLater(op *operation, project string, r spec.ChangeRequest) {
	err := l.ops.await(l.ctx, op)
	if err == nil {
		err = l.do(l.ctx, func() error {
			prev := l.present(project)
			switch err := l.known(prev, r); {
			case op.State.Ended(): // somebody took over
				return nil
			case prev == nil:
				return l.noProject(project)
			case err != nil:
				return err
			}
			l.ops.change(op, func(o *operation) { o.State = spec.OperationRolling })
			return l.change(op, project, prev, r)
		})
	}
	if err != nil {
		l.end(op, spec.OperationFailed, plain(err), nil)
	}
	l.Look()
}

// noProject says that a project isn't here, and which are.
func (l *Loop) noProject(name string) error {
	all := l.state.projectNames()
	next := "there is none here yet"
	switch near := spec.Nearest(name, all); {
	case near == name:
		next = "it is down; `dunnage rollback -p " + name + "` or a deploy brings it back, `dunnage down --forget -p " + name + "` drops what is kept of it"
	case near != "":
		next = "did you mean " + near + "? Projects here: " + strings.Join(all, ", ")
	case len(all) > 0:
		next = "projects here: " + strings.Join(all, ", ")
	}
	return fmt.Errorf("project %s: %w; %s", name, spec.ErrNotFound, next)
}

// known refuses a request that names a service the release doesn't have.
func (l *Loop) known(prev *spec.Release, r spec.ChangeRequest) error {
	if r.Kind == "restart" && prev != nil && len(l.named(*prev, r.Services)) > 0 {
		return nil // restartAlone sees to the others
	}
	for _, name := range append(slices.Sorted(maps.Keys(r.Replicas)), r.Services...) {
		if prev == nil {
			return fmt.Errorf("service %s: %w", name, spec.ErrNotFound)
		}
		if _, ok := prev.Project.Service(name); !ok {
			var names []string
			for _, s := range prev.Project.Services {
				names = append(names, s.Name)
			}
			return fmt.Errorf("service %s: %w in project %s; it has %s", name, spec.ErrNotFound, prev.Project.Name, strings.Join(names, ", "))
		}
	}
	return nil
}

func (l *Loop) change(op *operation, project string, prev *spec.Release, r spec.ChangeRequest) error {
	switch r.Kind {
	case "scale":
		return l.scale(op, *prev, r.Replicas)
	case "restart":
		return l.restart(op, *prev, r.Services)
	case "rollback":
		return l.rollback(op, project, r.Release)
	case "stop", "start":
		return l.setStopped(op, *prev, r.Services, r.Kind == "stop")
	case "down":
		l.retry(project)
		if _, known := l.state.project(project); !known { // a deploy that hadn't come further than its images
			l.end(op, spec.OperationDone, "", nil)
			return nil
		}
		if prev == nil { // it is on its way down, if anything is left
			return l.goToo(op, project, r)
		}
		return l.down(op, project, *prev, r)
	case "pause", "resume", "promote":
		return l.steer(op, r.Kind)
	default:
		return fmt.Errorf("unknown change %q: %w", r.Kind, spec.ErrRefused)
	}
}

// derive makes a release that differs from prev in one respect.
func (l *Loop) derive(op *operation, prev spec.Release, reason string, edit func(*spec.Service)) error {
	next := prev
	next.Reason = reason
	next.Project.Services = slices.Clone(prev.Project.Services)
	for i := range next.Project.Services {
		edit(&next.Project.Services[i])
	}
	if err := next.Project.Validate(); err != nil {
		return err
	}
	if err := errors.Join(l.canOpen(&prev, next), l.alloc.fit(next.Project)); err != nil {
		return err
	}
	l.ops.change(op, func(o *operation) { o.Services = compare(&prev, next) })
	return l.roll(op, candidate{release: next}, nil)
}

func (l *Loop) scale(op *operation, prev spec.Release, replicas map[string]int) error {
	var words []string
	differs := false
	for _, name := range slices.Sorted(maps.Keys(replicas)) {
		n := replicas[name]
		s, _ := prev.Project.Service(name)
		if n < 0 {
			return fmt.Errorf("scale %s=%d: a number of replicas is 0 or more: %w", name, n, spec.ErrRefused)
		}
		if n > 1 && s.Container.ContainerName != "" {
			return fmt.Errorf("scale %s=%d: its container_name %s can be that of one replica only; remove it from the manifest and deploy: %w", name, n, s.Container.ContainerName, spec.ErrRefused)
		}
		if v := s.Container.SharedVolume(); n > 1 && n > s.Replicas && v != "" {
			l.ops.change(op, func(o *operation) {
				o.Warnings = append(o.Warnings, fmt.Sprintf("%d replicas of %s write to the same volume %s: a database in it would be damaged", n, name, v))
			})
		}
		words = append(words, fmt.Sprintf("%s=%d", name, n))
		differs = differs || n != s.Replicas
	}
	if !differs && l.restsOn(op.Project, prev.Number) { // else it is one more try
		l.ops.change(op, func(o *operation) { o.Services = compare(&prev, prev) })
		l.rest(op, prev.Number)
		return nil
	}
	return l.derive(op, prev, "scale "+strings.Join(words, " "), func(s *spec.Service) {
		if n, ok := replicas[s.Name]; ok {
			s.Replicas = n
		}
	})
}

// restart rolls the services as a new generation, so that it is as safe as a
// deploy.
func (l *Loop) restart(op *operation, prev spec.Release, services []string) error {
	if replicas := l.named(prev, services); len(replicas) > 0 {
		return l.restartAlone(op, prev, services, replicas)
	}
	return l.derive(op, prev, strings.TrimSpace("restart "+strings.Join(services, " ")), func(s *spec.Service) {
		if len(services) == 0 || slices.Contains(services, s.Name) {
			s.Container.Epoch++
		}
	})
}

// changePatience bounds a stop or a start: a service that keeps crashing is never
// ready, and there is no release that could fail. Databases recover in minutes.
const changePatience = 5 * time.Minute

func (l *Loop) setStopped(op *operation, prev spec.Release, services []string, stopped bool) error {
	rec, _ := l.state.project(op.Project)
	if len(services) == 0 {
		for _, s := range prev.Project.Services {
			services = append(services, s.Name)
		}
	}
	change := spec.ChangeStart
	if stopped {
		change = spec.ChangeStop
	}
	l.ops.change(op, func(o *operation) {
		o.patience = l.cfg.Clock.Now().Add(changePatience)
		for _, name := range services {
			o.Services = append(o.Services, spec.ServiceOutcome{Name: name, Change: change})
		}
	})
	if rec.Paused != "" {
		rec.Reached = l.reachedBy(rec, prev, services)
		word := "what serves while it is starts"
		if stopped {
			word = "what serves while it is comes back with `dunnage start -p " + op.Project + "`"
		}
		l.ops.change(op, func(o *operation) {
			o.Warnings = append(o.Warnings, fmt.Sprintf("release %d stays paused (%s): %s; `dunnage rollout resume -p %s` goes on with the release, `dunnage rollback -p %s` goes back", rec.Desired, rec.Paused, word, op.Project, op.Project))
		})
	}
	set := slices.DeleteFunc(slices.Clone(rec.Stopped), func(s string) bool { return slices.Contains(services, s) })
	if stopped {
		set = append(set, services...)
	}
	slices.Sort(set)
	rec.Stopped = slices.Compact(set)
	if l.retry(op.Project); !stopped {
		if err := l.pardon(op.Project, services...); err != nil {
			return err
		}
	}
	return l.state.save(spec.Commit{Projects: []spec.ProjectRecord{rec}})
}

// reachedBy is rec.Reached with the services as they are now. What has taken connections
// isn't seen any more once it is stopped; nothing loses them while the rollout is
// paused, but for a while.
func (l *Loop) reachedBy(rec spec.ProjectRecord, release spec.Release, services []string) map[string]int {
	out := map[string]int{}
	maps.Copy(out, rec.Reached)
	for _, s := range servicesOf(l.status.Load().Projects, rec.Name) {
		wanted, _ := release.Project.Service(s.Name)
		for _, r := range s.Replicas {
			carries := r.Routed || len(wanted.Container.Networks) == 0 && r.State == spec.StateReady
			if carries && r.Generation == s.Generation && slices.Contains(services, s.Name) {
				out[s.Name] = max(out[s.Name], r.Number)
			}
		}
	}
	return out
}

// Releases lists the project's kept releases, newest first.
func (l *Loop) Releases(_ context.Context, project string) ([]spec.Release, error) {
	rec, ok := l.state.project(project)
	if !ok {
		return nil, l.noProject(project)
	}
	out := slices.Clone(l.state.history(project))
	slices.Reverse(out)
	for i := range out {
		out[i].State = releaseState(rec, out[i].Number)
		switch out[i].State {
		case spec.ReleaseFailed:
			out[i].Cause = rec.Causes[out[i].Number]
		case spec.ReleasePaused:
			out[i].Cause = rec.Paused
		}
	}
	return out, nil
}

// releaseState says what became of a release.
func releaseState(rec spec.ProjectRecord, n int) spec.ReleaseState {
	switch {
	case n == rec.Desired && !rec.Down && n == rec.Good:
		return spec.ReleaseCurrent
	case n == rec.Desired && !rec.Down && rec.Paused != "":
		return spec.ReleasePaused
	case slices.Contains(rec.Failed, n):
		return spec.ReleaseFailed
	case n == rec.Desired && !rec.Down:
		return spec.ReleaseRolling
	case slices.Contains(rec.Left, n):
		return spec.ReleaseLeft
	case slices.Contains(rec.Ran, n):
		return spec.ReleaseRan
	default:
		return ""
	}
}
