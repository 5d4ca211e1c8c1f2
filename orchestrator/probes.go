package orchestrator

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"dunnage/spec"
)

// resolveProbes replaces what only the image can say: the release holds the
// commands and times that replicas are probed with, so that its generations
// depend on them.
func (l *Loop) resolveProbes(ctx context.Context, r *spec.Release) error {
	for i := range r.Project.Services {
		s := &r.Project.Services[i]
		var image *spec.Probe
		asks := slices.ContainsFunc(s.Container.Probes, func(p spec.Probe) bool { return p.Kind == spec.ProbeImage })
		if digest := r.Images[s.Name].Digest; asks && digest != "" { // a preview may know no image
			var err error
			if image, err = l.cfg.Images.Healthcheck(ctx, digest); err != nil {
				return fmt.Errorf("service %s: look for a HEALTHCHECK: %w", s.Name, err)
			}
		}
		s.Container.Probes = resolved(s.Container.Probes, image)
	}
	return nil
}

// resolved are the probes with the image's own in place of the one that stands
// for it, and of the fallback ones; nil = the image has none.
func resolved(probes []spec.Probe, image *spec.Probe) []spec.Probe {
	var out []spec.Probe
	for _, p := range probes {
		switch {
		case p.Kind == spec.ProbeImage && image != nil:
			out = append(out, overridden(*image, p))
		case p.Kind == spec.ProbeImage, p.Fallback && image != nil:
		default:
			p.Fallback = false
			out = append(out, p)
		}
	}
	if len(out) == 0 { // asked for by nobody but a client of its own making
		out = []spec.Probe{{Kind: spec.ProbeRunning}}
	}
	return out
}

// overridden is the image's probe with the times that the manifest sets.
func overridden(image, said spec.Probe) spec.Probe {
	image.Interval = cmp.Or(said.Interval, image.Interval)
	image.Timeout = cmp.Or(said.Timeout, image.Timeout)
	image.StartPeriod = cmp.Or(said.StartPeriod, image.StartPeriod)
	image.StartInterval = cmp.Or(said.StartInterval, image.StartInterval)
	image.Retries = cmp.Or(said.Retries, image.Retries)
	image.FromImage = true
	return image
}
