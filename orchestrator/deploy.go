package orchestrator

import (
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
	op, err := l.ops.take(r.Project.Name, "deploy", r.Turn, spec.OperationPulling)
	if err != nil {
		return spec.Operation{}, err
	}
	ctx, cancel := context.WithCancel(l.ctx)
	l.ops.change(op, func(o *operation) { o.cancel = cancel })
	l.jobs.Go(func() {
		defer cancel()
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
	l.ops.change(op, func(o *operation) { o.State = spec.OperationPulling })
	if err := l.checkSources(ctx, r.Project); err != nil {
		return err
	}
	images, err := l.pull(ctx, op, r.Project)
	if err != nil {
		return err
	}
	err = l.do(ctx, func() error {
		if err := l.mayChange(); err != nil { // known only since the first look
			return err
		}
		prev := l.present(r.Project.Name)
		c, err := l.propose(ctx, r, images, prev)
		if err != nil {
			return err
		}
		l.ops.change(op, func(o *operation) { o.Services, o.Warnings = c.changes, c.notes })
		if ctx.Err() != nil { // somebody else took over
			return context.Cause(ctx)
		}
		if c.unchanged(prev) && l.restsOn(r.Project.Name, prev.Number) {
			l.rest(op, prev.Number)
			return nil
		}
		return l.roll(op, c.release)
	})
	return err
}

// restsOn reports whether the release has converged and nothing of it is
// stopped on request: then the same manifest asks for nothing.
func (l *Loop) restsOn(project string, release int) bool {
	rec, _ := l.state.project(project)
	return rec.Good == release && len(rec.Stopped) == 0
}

// restPatience is how long a deploy that changes nothing waits for replicas
// that aren't ready. One that is being restarted is back by then.
const restPatience = 15 * time.Second

// rest ends a deploy that changes nothing, at once if all is ready.
func (l *Loop) rest(op *operation, release int) {
	l.ops.change(op, func(o *operation) { o.Release = release })
	for _, s := range l.outcomes(op) {
		if s.Ready < s.Wanted {
			l.ops.change(op, func(o *operation) {
				o.State, o.patience = spec.OperationRolling, l.cfg.Clock.Now().Add(restPatience)
			})
			return
		}
	}
	l.end(op, spec.OperationUnchanged, "", l.outcomes(op))
}

// roll installs the release and lets the operation follow it.
func (l *Loop) roll(op *operation, r spec.Release) error {
	number, err := l.install(r)
	if err != nil {
		return err
	}
	l.ops.change(op, func(o *operation) { o.State, o.Release = spec.OperationRolling, number })
	l.Look()
	return nil
}

// pull gets every image of the project and pins it by digest. An image that is
// present is used as it is, as Compose does.
func (l *Loop) pull(ctx context.Context, op *operation, p spec.Project) (map[string]spec.PinnedImage, error) {
	byRef := map[string]spec.PinnedImage{}
	out := map[string]spec.PinnedImage{}
	for _, s := range p.Services {
		ref := s.Container.Image
		if _, ok := byRef[ref]; !ok {
			image, err := l.ensureImage(ctx, op, ref)
			if err != nil {
				return nil, fmt.Errorf("service %s: image %s: %w", s.Name, ref, err)
			}
			byRef[ref] = image
		}
		out[s.Name] = byRef[ref]
	}
	return out, nil
}

// An engine that is being restarted is waited for before a deploy fails.
const (
	engineBack  = 20 * time.Second
	engineRetry = 100 * time.Millisecond
)

// findImage resolves ref among the stored images.
func (l *Loop) findImage(ctx context.Context, ref string) (spec.PinnedImage, error) {
	ctx, cancel := context.WithTimeout(ctx, engineBack)
	defer cancel()
	for {
		image, err := l.cfg.Images.Resolve(ctx, ref)
		if !errors.Is(err, spec.ErrUnavailable) {
			return image, err
		}
		select {
		case <-ctx.Done():
			return image, err
		case <-time.After(engineRetry):
		}
	}
}

func (l *Loop) ensureImage(ctx context.Context, op *operation, ref string) (spec.PinnedImage, error) {
	image, err := l.findImage(ctx, ref)
	if err == nil || !errors.Is(err, spec.ErrNotFound) {
		return image, err
	}
	image, err = l.cfg.Images.Pull(ctx, ref, func(p spec.PullProgress) {
		l.events.add(spec.Event{Kind: spec.EventPull, Operation: op.ID, Project: op.Project, Pull: &p})
	})
	if err != nil {
		err = l.notToBeHad(ctx, ref, err)
	}
	return image, err
}

// notToBeHad says of an image that is neither stored nor pulled what to do.
func (l *Loop) notToBeHad(ctx context.Context, ref string, cause error) error {
	meant := ""
	stored, err := l.cfg.Images.ListImages(ctx)
	if err != nil { // the cause is worth telling without a guess
		l.cfg.Log.Warn("list images to find a near one", "image", ref, "error", err)
	} else if near := nearImage(ref, stored); near != "" {
		meant = " (did you mean " + near + "?)"
	}
	return fmt.Errorf("not stored here%s, and %w; try `dunnage image pull %s`, or `dunnage image load FILE` without a registry", meant, cause, ref)
}

// nearImage is the stored image that was probably meant by ref: that of another
// registry, one to reach by a slip or two, or another version; "" = there is none.
func nearImage(ref string, stored []spec.Image) string {
	last := func(ref string) string { return ref[strings.LastIndexByte(ref, '/')+1:] }
	var names []string
	for _, i := range stored {
		names = append(names, last(i.Ref))
	}
	i := slices.Index(names, spec.Nearest(last(ref), names))
	if i < 0 {
		repository, _, _ := strings.Cut(last(ref), ":")
		i = slices.IndexFunc(names, func(n string) bool { return strings.HasPrefix(n, repository+":") })
	}
	if i < 0 {
		return ""
	}
	return stored[i].Ref
}

// repull gets back an image that vanished under a release. The replicas that
// need it are tried again meanwhile, at their own pace.
func (l *Loop) repull(image spec.PinnedImage) {
	ref := image.Pinned()
	if l.pulling[ref] {
		return
	}
	l.pulling[ref] = true
	l.jobs.Go(func() {
		_, err := l.cfg.Images.Pull(l.ctx, ref, func(spec.PullProgress) {})
		if err != nil {
			l.cfg.Log.Error("pull a missing image again", "image", ref, "error", err)
		}
		_ = l.do(l.ctx, func() error { delete(l.pulling, ref); return nil }) // fails only when the agent stops
	})
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
		if errors.Is(err, spec.ErrNotFound) {
			if !slices.Contains(out.Pull, s.Container.Image) {
				out.Pull = append(out.Pull, s.Container.Image)
			}
		} else if err != nil {
			return out, err
		}
		images[s.Name] = image
	}
	err := l.do(ctx, func() error {
		prev := l.present(r.Project.Name)
		c, err := l.propose(ctx, r, images, prev)
		if err != nil {
			return err
		}
		out.Notes = c.notes
		out.Services = previews(prev, c)
		if prev != nil {
			out.From = prev.Number
		}
		return nil
	})
	return out, err
}
