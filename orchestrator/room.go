package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// roomFor refuses a deploy whose images don't fit on the disk or into its budget,
// before anything of them is pulled. Where collecting makes room for them, it
// collects. The note says so.
// An image whose size no registry tells in time is left to its pull.
func (l *Loop) roomFor(ctx context.Context, p spec.Project) (note string, err error) {
	pulls, err := l.toPull(ctx, p)
	if err != nil {
		// The pull meets it again, and says so. That of a full disk is told here, in
		// numbers: a deploy needs some room even without its images.
		pulls = nil
	}
	blobs := l.pullSizes(ctx, pulls)
	download, images := spec.Room(blobs)
	return l.collectFor(ctx, images, "the deploy doesn't fit: "+plan.Needs(download, images))
}

// LoadRoom refuses the load of an archive with these layers when those that are new
// don't fit on the disk or into its budget. Where collecting makes room for them,
// it collects, and the note says so. A load that brings no new layer is never
// refused: it may be what mends a damaged image.
func (l *Loop) LoadRoom(ctx context.Context, layers []spec.MissingBlob) (note string, err error) {
	layers, err = l.cfg.Images.NewLayers(ctx, layers)
	if err != nil || len(layers) == 0 {
		return "", err
	}
	stored, images := spec.Room(layers)
	return l.collectFor(ctx, images, "the archive doesn't fit: "+plan.LoadNeeds(stored, images))
}

// collectFor collects where images don't fit, or, where that isn't enough, refuses
// what needs them.
func (l *Loop) collectFor(ctx context.Context, images spec.DiskUse, needs string) (note string, err error) {
	space, err := l.space(ctx)
	if err != nil {
		l.cfg.Log.Warn("ask for the room on disk", "error", err)
		return "", nil // an engine that doesn't answer is told of elsewhere
	}
	lacks := space.Lacks(images)
	if len(lacks) == 0 {
		return "", nil
	}
	freed, err := l.wouldFree(ctx)
	if err != nil {
		return "", err
	}
	if !plan.Enough(lacks, freed) {
		return "", l.refusedForRoom(needs, lacks, freed)
	}
	c, err := l.collect(ctx, l.collectRequest(true), "to make room for a deploy or a load")
	if err != nil && len(c.Items) == 0 {
		return "", fmt.Errorf("collect what nobody needs: %w", err)
	}
	if space, err = l.space(ctx); err != nil {
		return "", err
	}
	if lacks = space.Lacks(images); len(lacks) > 0 {
		return "", l.refusedForRoom(needs, lacks, spec.DiskUse{})
	}
	return fmt.Sprintf("collected %s of what nobody needs, to make room", spec.Bytes(c.Freed.Bytes)), nil
}

// refusedForRoom says what is needed, what there is, what collecting would free
// and what to do.
func (l *Loop) refusedForRoom(needs string, lacks []plan.Lack, freed spec.DiskUse) error {
	gc := "`dunnage gc` would free nothing"
	if freed.Bytes > 0 || freed.Inodes > 0 {
		gc = fmt.Sprintf("`dunnage gc` would free %s and %d inodes, which isn't enough", spec.Bytes(freed.Bytes), freed.Inodes)
	}
	budget := slices.ContainsFunc(lacks, func(l plan.Lack) bool { return l.Budget })
	disk := slices.ContainsFunc(lacks, func(l plan.Lack) bool { return !l.Budget })
	return fmt.Errorf("%s, and %s; %s; %s: %w", needs, plan.Short(lacks), gc, l.whatMakesRoom(budget, disk), spec.ErrRefused)
}

// whatMakesRoom says what makes room where collecting doesn't: in the budget, on a file
// system or both. It names nothing to give up that isn't there.
func (l *Loop) whatMakesRoom(budget, disk bool) string {
	var several bool
	var down []string
	names := l.state.projectNames()
	for _, name := range names {
		rec, _ := l.state.project(name)
		several = several || len(l.state.history(name)) > 1
		if rec.Down {
			down = append(down, name)
		}
	}
	text := "`dunnage df` shows what takes the room"
	if len(names) > 0 {
		forget := "`dunnage down --forget` of what isn't needed any more"
		if len(down) > 0 {
			forget += " (down already: " + some(down) + ")"
		}
		if several {
			forget = "fewer disk.keep_releases, or " + forget + ","
		}
		text += "; " + forget + " lets gc free more"
	}
	if disk {
		text += "; `du -x` finds what isn't dunnage's"
	}
	if budget {
		text += "; disk.budget in the agent's file is the ceiling: raise it where the disk has room, and `systemctl restart dunnage`"
	}
	return text
}

// toPull lists the images that a deploy of p would pull.
func (l *Loop) toPull(ctx context.Context, p spec.Project) ([]spec.ImagePull, error) {
	var out []spec.ImagePull
	for _, s := range p.Services {
		_, err := l.cfg.Images.Resolve(ctx, s.Container.Image)
		missing := errors.Is(err, spec.ErrNotFound)
		if err != nil && !missing {
			return nil, err
		}
		pulls := s.Pull == spec.PullAlways || missing && s.Build == "" && s.Pull != spec.PullNever
		if pulls && !slices.ContainsFunc(out, func(i spec.ImagePull) bool { return i.Ref == s.Container.Image }) {
			out = append(out, spec.ImagePull{Ref: s.Container.Image})
		}
	}
	return out, nil
}

// space is what there is on disk and of the budget.
func (l *Loop) space(ctx context.Context) (plan.Space, error) {
	out := plan.Space{Budget: l.cfg.Budget}
	var err error
	if out.Disks, err = l.cfg.Disk.Filesystems(ctx); err != nil || out.Budget == 0 {
		return out, err
	}
	items, err := l.cfg.Disk.Use(ctx)
	out.Used = budgeted(items).Bytes
	return out, err
}

// wouldFree is what collecting frees where room is short.
func (l *Loop) wouldFree(ctx context.Context) (spec.DiskUse, error) {
	r := l.collectRequest(true)
	r.Rehearse = true
	c, err := l.collect(ctx, r, "")
	if err != nil && len(c.Items) == 0 {
		return spec.DiskUse{}, fmt.Errorf("ask what collecting would free: %w", err)
	}
	return c.Freed, nil
}

// foreseeRoom says in a preview what roomFor will: empty = it fits.
func (l *Loop) foreseeRoom(ctx context.Context, blobs []spec.MissingBlob) string {
	download, images := spec.Room(blobs)
	space, err := l.space(ctx)
	if err != nil {
		l.cfg.Log.Warn("ask for the room on disk", "error", err)
		return ""
	}
	lacks := space.Lacks(images)
	if len(lacks) == 0 {
		return ""
	}
	freed, err := l.wouldFree(ctx)
	switch {
	case err != nil:
		l.cfg.Log.Warn("ask what collecting would free", "error", err)
		return ""
	case plan.Enough(lacks, freed):
		return fmt.Sprintf("%s, and %s: the deploy collects first, which frees %s (`dunnage gc --dry-run` lists it)",
			plan.Needs(download, images), plan.Short(lacks), spec.Bytes(freed.Bytes))
	}
	return spec.Text(l.refusedForRoom("the deploy doesn't fit: "+plan.Needs(download, images), lacks, freed))
}
