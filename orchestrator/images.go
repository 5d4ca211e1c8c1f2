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

// pull gets every image of the project and pins it by digest. An image that is
// present is used as it is, as Compose does, unless its service says otherwise.
func (l *Loop) pull(ctx context.Context, op *operation, p spec.Project, stored map[string]holding) (map[string]spec.PinnedImage, error) {
	type asked struct {
		ref    string
		always bool
	}
	seen := map[asked]spec.PinnedImage{}
	out := map[string]spec.PinnedImage{}
	for _, s := range p.Services {
		key := asked{s.Container.Image, s.Pull == spec.PullAlways}
		image, ok := seen[key]
		if !ok {
			var err error
			if image, err = l.ensureImage(ctx, op, s, stored); errors.Is(err, errUnanswered) {
				return nil, err // which says nothing of the image
			} else if err != nil {
				return nil, fmt.Errorf("service %s: image %s: %w", s.Name, s.Container.Image, err)
			}
			seen[key] = image
		}
		out[s.Name] = image
	}
	return out, nil
}

// An engine that is being restarted is waited for before a deploy fails.
const (
	engineBack  = 20 * time.Second
	engineRetry = 100 * time.Millisecond
)

// holding is what findImage says.
type holding struct {
	image spec.PinnedImage
	err   error
}

// findImage resolves ref among the stored images, and holds what it finds for the
// operation.
func (l *Loop) findImage(ctx context.Context, op *operation, ref string) holding {
	ctx, cancel := context.WithTimeout(ctx, engineBack)
	defer cancel()
	for {
		image, err := l.cfg.Images.Hold(ctx, holdName(op.ID), ref)
		if !errors.Is(err, spec.ErrUnavailable) {
			return holding{image, unserved(err)}
		}
		select {
		case <-ctx.Done():
			return holding{image, unserved(err)}
		case <-time.After(engineRetry):
		}
	}
}

// holdStored finds, beside the caller, those of the project's images that no
// service of it has pulled anew, by reference.
func (l *Loop) holdStored(ctx context.Context, op *operation, p spec.Project) <-chan map[string]holding {
	out := make(chan map[string]holding, 1)
	l.jobs.Go(func() {
		all := map[string]holding{}
		for _, s := range p.Services {
			ref := s.Container.Image
			_, asked := all[ref]
			if !asked && !slices.ContainsFunc(p.Services, func(s spec.Service) bool { return s.Container.Image == ref && s.Pull == spec.PullAlways }) {
				all[ref] = l.findImage(ctx, op, ref)
			}
		}
		out <- all
	})
	return out
}

// ensureImage takes the service's image that is stored, or pulls it as its policy says. One
// that the manifest builds is nobody else's to deliver.
func (l *Loop) ensureImage(ctx context.Context, op *operation, s spec.Service, stored map[string]holding) (spec.PinnedImage, error) {
	ref := s.Container.Image
	if s.Pull != spec.PullAlways {
		found, ok := stored[ref]
		if !ok {
			found = l.findImage(ctx, op, ref)
		}
		image, err := found.image, found.err
		switch {
		case err == nil || !errors.Is(err, spec.ErrNotFound):
			return image, err
		case s.Build != "":
			return image, fmt.Errorf("it isn't built; build it with `%s`, then `docker save %s | dunnage image load`, and deploy again", s.Build, ref)
		case s.Pull == spec.PullNever:
			return image, fmt.Errorf("it isn't stored here, and pull_policy is never; `dunnage image load FILE` or `dunnage image pull %s` brings it", ref)
		}
	}
	image, err := l.cfg.Images.Pull(ctx, ref, func(p spec.PullProgress) {
		l.events.add(spec.Event{Kind: spec.EventPull, Operation: op.ID, Project: op.Project, Pull: &p})
	})
	if err != nil {
		return image, l.notToBeHad(ctx, ref, err)
	}
	_, err = l.cfg.Images.Hold(ctx, holdName(op.ID), image.Pinned())
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
