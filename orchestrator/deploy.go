package orchestrator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"dunnage/spec"
)

// Deploy starts an operation that makes the request's project true. It returns
// at once; the operation goes on without ctx.
func (l *Loop) Deploy(_ context.Context, r spec.DeployRequest) (spec.Operation, error) {
	if err := r.Project.Validate(); err != nil {
		return spec.Operation{}, err
	}
	if err := l.mayChange(); err != nil {
		return spec.Operation{}, err
	}
	r.TakeOver = r.TakeOver || l.onlyPaused(r.Project.Name)
	op, err := l.take(r.Project.Name, "deploy", r.Turn, spec.OperationPulling)
	if err != nil {
		return spec.Operation{}, err
	}
	ctx, cancel := context.WithCancel(l.ctx)
	l.ops.change(op, func(o *operation) { o.cancel = cancel })
	l.jobs.Go(func() {
		defer cancel()
		defer l.letGoOf(op)
		err := l.deploy(ctx, op, r)
		if err != nil && l.ctx.Err() != nil {
			err = errStopped
		}
		if err != nil {
			l.end(op, spec.OperationFailed, plain(err), nil)
		}
	})
	return l.ops.copyOf(op), nil
}

// errStopped is the cause of what ended with the agent.
var errStopped = errors.New("the agent was stopped")

// plain is an error as one line for people.
func plain(err error) string { return strings.ReplaceAll(spec.Text(err), "\n", "; ") }

// deploy pulls, checks and installs. Until install, nothing is changed.
func (l *Loop) deploy(ctx context.Context, op *operation, r spec.DeployRequest) error {
	if r.TakeOver {
		l.makeRoom(op)
	}
	if err := l.ops.await(ctx, op); err != nil {
		return err
	}
	if begun := l.ops.change(op, func(o *operation) {
		if !o.State.Ended() {
			o.State = spec.OperationPulling
		}
	}); begun.State.Ended() {
		return nil // somebody took over
	}
	if err := l.checkSources(ctx, r.Project); err != nil {
		return err
	}
	began := l.cfg.Clock.Now()
	stored := l.holdStored(ctx, op, r.Project)
	room, err := l.roomFor(ctx, r.Project)
	found := <-stored
	if err != nil {
		return err
	}
	images, err := l.pull(ctx, op, r.Project, found)
	if err != nil {
		return err
	}
	op.pull = span{began, l.cfg.Clock.Now()}
	err = l.do(ctx, func() error {
		if err := l.mayChange(); err != nil { // known only since the first look
			return err
		}
		l.vault.Lock() // until what the manifest brings is sealed and saved
		defer l.vault.Unlock()
		prev := l.present(r.Project.Name)
		c, err := l.propose(ctx, r, images, prev)
		if err != nil {
			return err
		}
		notes := c.notes
		for _, ch := range c.changes {
			if text := l.thirdNote(c.release, ch.Name, ch.Change); text != "" {
				notes = append(notes, ch.Name+": "+text)
			}
		}
		if room != "" {
			notes = append(notes, room)
		}
		if rec := l.recordOf(r.Project.Name); prev != nil && rec.Paused == pausedByHand {
			notes = append(notes, fmt.Sprintf("release %d was paused (%s): this deploy ends the pause", rec.Desired, rec.Paused))
		}
		l.ops.change(op, func(o *operation) { o.Services, o.Warnings = c.changes, notes })
		if ctx.Err() != nil { // somebody else took over
			return context.Cause(ctx)
		}
		if l.changesNothing(prev, c) {
			l.rest(op, prev.Number)
			return nil
		}
		return l.roll(op, c, r.Inactive)
	})
	return err
}

// changesNothing reports whether the deploy of c makes no release: it is what
// has converged.
func (l *Loop) changesNothing(prev *spec.Release, c candidate) bool {
	return c.unchanged(prev) && l.restsOn(prev.Project.Name, prev.Number)
}

// restsOn reports whether the release has converged: then who asks for the same
// asks for nothing.
func (l *Loop) restsOn(project string, release int) bool {
	rec, _ := l.state.project(project)
	return rec.Good == release
}

// restPatience is how long a change that changes nothing waits for replicas
// that aren't ready. One that is being restarted is back by then.
const restPatience = 15 * time.Second

// rest ends a change that changes nothing, at once if all is ready.
func (l *Loop) rest(op *operation, release int) {
	l.ops.change(op, func(o *operation) { o.Release = release })
	stopped := l.recordOf(op.Project).Stopped
	for _, s := range l.outcomes(op) {
		if s.Ready < s.Wanted && !slices.Contains(stopped, s.Name) {
			l.ops.change(op, func(o *operation) {
				o.State, o.patience = spec.OperationRolling, l.cfg.Clock.Now().Add(restPatience)
			})
			return
		}
	}
	l.end(op, spec.OperationUnchanged, "", l.outcomes(op))
}

// roll installs the release and lets the operation follow it.
func (l *Loop) roll(op *operation, c candidate, inactive []string) error {
	failing := l.failing(op.Project)
	l.ops.change(op, func(o *operation) { o.failing = failing })
	number, err := l.install(op, c, inactive)
	if err != nil {
		return err
	}
	rec := l.recordOf(op.Project)
	tried := l.triedAgain(op, rec)
	l.ops.change(op, func(o *operation) {
		o.Release, o.ailing, o.Services = number, rec.Ailing, slices.Clone(o.Services)
		for i, s := range o.Services {
			o.Services[i].Change = cmp.Or(tried[s.Name], s.Change)
		}
		if !o.State.Ended() { // somebody may have taken over meanwhile
			o.State = spec.OperationRolling
		}
	})
	l.Look()
	return nil
}

// triedAgain lists the services that the release before was judged by and failed of,
// and that the operation asks for as they were: it tries them again, and is judged by
// them too. They come with what that does to them, against the last release that has
// converged.
func (l *Loop) triedAgain(op *operation, rec spec.ProjectRecord) map[string]spec.Change {
	next, _ := l.state.release(op.Project, rec.Desired)
	var good *spec.Release
	if r, ok := l.state.release(op.Project, rec.Good); ok {
		good = &r
	}
	out := map[string]spec.Change{}
	for _, s := range compare(good, next) {
		if moves(s) && slices.Contains(op.failing, s.Name) && !slices.Contains(rec.Ailing, s.Name) {
			out[s.Name] = s.Change
		}
	}
	for _, s := range op.Services {
		if moves(s) {
			delete(out, s.Name)
		}
	}
	return out
}

// Preview says what Deploy would do. Images that aren't present count as a new
// digest.
func (l *Loop) Preview(ctx context.Context, r spec.DeployRequest) (spec.Preview, error) {
	out := spec.Preview{Project: r.Project.Name}
	if err := r.Project.Validate(); err != nil {
		return out, err
	}
	if err := l.checkSources(ctx, r.Project); err != nil {
		return out, err
	}
	images := map[string]spec.PinnedImage{}
	for _, s := range r.Project.Services {
		image, err := l.cfg.Images.Resolve(ctx, s.Container.Image)
		missing := errors.Is(err, spec.ErrNotFound)
		switch {
		case err != nil && !missing:
			return out, err
		case missing && s.Build != "":
			out.Notes = append(out.Notes, fmt.Sprintf("%s: the image %s isn't built; build it with `%s`", s.Name, s.Container.Image, s.Build))
		case (missing || s.Pull == spec.PullAlways) && !slices.ContainsFunc(out.Pull, func(p spec.ImagePull) bool { return p.Ref == s.Container.Image }):
			out.Pull = append(out.Pull, spec.ImagePull{Ref: s.Container.Image})
		}
		images[s.Name] = image
	}
	if note := l.foreseeRoom(ctx, l.pullSizes(ctx, out.Pull)); note != "" {
		out.Notes = append(out.Notes, note)
	}
	err := l.do(ctx, func() error {
		l.vault.RLock()
		defer l.vault.RUnlock()
		prev := l.present(r.Project.Name)
		c, err := l.propose(ctx, r, images, prev)
		if err != nil {
			return err
		}
		out.Notes = append(out.Notes, c.notes...)
		out.Services = previews(prev, c)
		rec, _ := l.state.project(r.Project.Name)
		if !l.changesNothing(prev, c) {
			out.To = max(rec.Next, 1)
		}
		if prev != nil {
			out.From = prev.Number
			l.previewRollout(&out, rec, c)
		}
		if op, busy := l.ops.running()[out.Project]; busy && !l.onlyPaused(out.Project) { // else a deploy takes over
			out.Notes = append(out.Notes, fmt.Sprintf("another change is at work: %s; until it has ended a deploy is refused, unless --wait or --take-over says otherwise", atWork(op, l.cfg.Clock.Now())))
		}
		return l.foresee(ctx, &out, prev, c, r.Inactive)
	})
	return out, err
}

// previewRollout says what a deploy does beside what differs from the present
// release: where that hasn't converged, it begins another rollout.
func (l *Loop) previewRollout(out *spec.Preview, rec spec.ProjectRecord, c candidate) {
	out.Paused = rec.Paused
	switch {
	case rec.Paused != "":
		out.Notes = append(out.Notes, l.pausedNote(out, rec, c))
	case out.To == 0 || slices.ContainsFunc(c.changes, moves):
	case rec.Good == rec.Desired:
		out.Notes = append(out.Notes, fmt.Sprintf("only networks differ: a deploy makes release %d, and replaces nothing", out.To))
	default:
		out.Notes = append(out.Notes, fmt.Sprintf("no service differs from release %d, but that hasn't converged: a deploy begins its rollout anew, as release %d", rec.Desired, out.To))
	}
}

// moves reports whether a release does anything to the service.
func moves(s spec.ServiceOutcome) bool {
	return s.Change != spec.ChangeNone && s.Change != spec.ChangeOrphan
}

// pausedNote says what a deploy does to the rollout that is paused.
func (l *Loop) pausedNote(out *spec.Preview, rec spec.ProjectRecord, c candidate) string {
	text := fmt.Sprintf("release %d is paused (%s): a deploy ends the pause and begins the rollout of release %d", rec.Desired, rec.Paused, rec.Next)
	if good, ok := l.state.release(out.Project, rec.Good); ok {
		var does []string
		for _, s := range compare(&good, c.release) {
			if moves(s) {
				does = append(does, fmt.Sprintf("%s %s", s.Change, s.Name))
			}
		}
		text += fmt.Sprintf(", which against release %d is to %s", rec.Good, cmp.Or(strings.Join(does, ", "), "change nothing"))
	}
	return text + fmt.Sprintf("; `dunnage rollout resume -p %s` goes on with release %d", out.Project, rec.Desired)
}
