package orchestrator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// Times of collecting.
const (
	// collectEvery is the pause between two collections while nothing is known to
	// have become free.
	collectEvery = 10 * time.Minute
	// collectAfter is the pause after a change: a rollout that has just ended may be
	// rolled back, or followed by another.
	collectAfter = 5 * time.Second
	// overEvery is the pause between two looks whether the disk is over its budget.
	overEvery = time.Minute
	// glanceEvery is the pause between two looks whether a disk that is short still is:
	// who has made room looks at once whether that was enough.
	glanceEvery = 5 * time.Second
	// collectTimeout bounds one collection: a disk that is slow removes some
	// thousand files a second.
	collectTimeout = 5 * time.Minute
)

// Space is short when less than one part in shortOf is left to others than root, and
// the budget is nearly used from nearlyPercent of it on.
const (
	shortOf       = 20
	nearlyPercent = 90
)

// collecting is what the loop remembers of collections. Run's goroutine owns it.
type collecting struct {
	due    time.Time     // of the next collection
	look   time.Time     // of the next comparison with the budget
	glance time.Time     // of the next look whether a disk that is short still is
	done   chan struct{} // closed when the one that runs is over; nil = none runs
	clean  bool          // nothing has become free since the last one
}

// shortness is how the disk is short although all is collected.
type shortness struct {
	why  string // as short says it
	rest string // what is left to collect, and what to do
}

// freeLater says that something has become free, or may have.
func (l *Loop) freeLater() { l.collects.clean = false }

// collectSometimes collects in the background: some seconds after something has
// become free, and now and then. While changes are at work it waits for their
// end, but no longer than until the next regular one.
func (l *Loop) collectSometimes() {
	if l.cfg.Disk == nil {
		return
	}
	c := &l.collects
	now := l.cfg.Clock.Now()
	if c.done != nil {
		select {
		case <-c.done:
			c.done = nil
		default:
			return
		}
	}
	if c.due.IsZero() { // after a start, first the replicas
		c.due, c.look, c.clean = now.Add(overEvery), now.Add(collectAfter), true
	}
	if !c.clean {
		c.clean = true
		soon := now.Add(collectAfter)
		if soon.Before(c.due) {
			c.due = soon
		}
		if soon.Before(c.look) { // also while changes are at work: one after the other, they fill the disk
			c.look = soon
		}
	}
	usual := !now.Before(c.due) && (len(l.ops.running()) == 0 || now.Sub(c.due) > collectEvery)
	work := func(ctx context.Context) error { return l.keepInBudget(ctx, usual) }
	switch {
	case usual:
		c.due, c.look = now.Add(collectEvery), now.Add(overEvery)
	case !now.Before(c.look):
		c.look = now.Add(overEvery)
	case (l.tight.Load() != nil || l.nearly.Load() != nil) && !now.Before(c.glance):
		work = l.stillShort
	default:
		return
	}
	c.glance = now.Add(glanceEvery)
	done := make(chan struct{})
	c.done = done
	l.jobs.Go(func() {
		defer close(done)
		defer l.Look()
		ctx, cancel := context.WithTimeout(l.ctx, collectTimeout)
		defer cancel()
		if err := work(ctx); err != nil && l.ctx.Err() == nil {
			l.cfg.Log.Warn("collect what nobody needs", "error", err)
		}
	})
}

// keepInBudget collects, and again with less patience if the disk is over its
// budget or nearly full.
func (l *Loop) keepInBudget(ctx context.Context, usual bool) error {
	if usual {
		if _, err := l.collect(ctx, l.collectRequest(false), ""); err != nil {
			return err
		}
	}
	why, budget, err := l.short(ctx)
	if err != nil {
		return err
	}
	var waiting []spec.WaitingImage
	if why != "" {
		c, err := l.collect(ctx, l.collectRequest(true), "because "+strings.TrimPrefix(why, "disk: "))
		if err != nil {
			return err
		}
		waiting = c.Waiting
		if why, budget, err = l.short(ctx); err != nil {
			return err
		}
	}
	l.tellShort(why, budget, waiting)
	return nil
}

// tellShort tells once when collecting isn't enough any more, and when it is again.
// Budget: it is the budget that isn't kept. Waiting are images that a later collection
// will remove.
func (l *Loop) tellShort(why string, budget bool, waiting []spec.WaitingImage) {
	if why == "" {
		if before := l.tight.Swap(nil); before != nil {
			l.cfg.Log.Info("no longer", "problem", before.why)
			l.events.add(spec.Event{Kind: spec.EventRepaired, Message: "no longer: " + before.why})
		}
		return
	}
	now := &shortness{why, ", and nothing is left to collect; " + l.whatMakesRoom(budget, !budget)}
	if len(waiting) > 0 {
		now.rest = ", and images wait to be deployed or collected: " + spec.WaitingText(waiting) + "; `dunnage gc --all` doesn't wait, `dunnage df` shows what takes the rest"
	}
	if before := l.tight.Swap(now); before == nil {
		l.cfg.Log.Warn("disk", "problem", now.text())
		l.events.add(spec.Event{Kind: spec.EventProblem, Message: now.text()})
	}
}

func (s *shortness) text() string { return s.why + s.rest }

// stillShort looks whether a disk that is short, or a budget that is nearly used, still is, and collects nothing. Where
// that can't be told, the next collection says so.
func (l *Loop) stillShort(ctx context.Context) error {
	why, _, err := l.short(ctx)
	switch before := l.tight.Load(); {
	case err != nil:
	case why == "":
		l.tellShort("", false, nil)
	case before == nil: // the next comparison collects first
	case why != before.why:
		l.tight.Store(&shortness{why, before.rest})
	}
	return nil
}

// short says how the disk is over its budget or nearly full, and which of both; empty =
// it isn't. It notes whether the budget is nearly used.
func (l *Loop) short(ctx context.Context) (why string, budget bool, err error) {
	s, err := l.space(ctx)
	if err != nil {
		return "", false, err
	}
	if why, budget = shortage(s); why == "" && s.Budget > 0 && s.Used >= s.Budget/100*nearlyPercent {
		text := fmt.Sprintf("disk: %s are in use of a budget of %s (%d %%): a deploy or a load that doesn't fit into the rest is refused; %s",
			spec.Bytes(s.Used), spec.Bytes(s.Budget), s.Used*100/s.Budget, l.whatMakesRoom(true, false))
		l.nearly.Store(&text)
	} else {
		l.nearly.Store(nil)
	}
	return why, budget, nil
}

// shortage is short of what there is.
func shortage(s plan.Space) (why string, budget bool) {
	if s.Budget > 0 && s.Used > s.Budget {
		return fmt.Sprintf("disk: %s are in use of a budget of %s", spec.Bytes(s.Used), spec.Bytes(s.Budget)), true
	}
	for _, d := range s.Disks {
		if d.Available < d.Size/shortOf {
			return fmt.Sprintf("disk: %s of %s are left on the file system of %s", spec.Bytes(d.Available), spec.Bytes(d.Size), d.Dir), false
		}
		if d.FreeInodes < d.Inodes/shortOf {
			return fmt.Sprintf("disk: %d of %d inodes are left on the file system of %s", d.FreeInodes, d.Inodes, d.Dir), false
		}
	}
	return "", false
}

func (l *Loop) collectRequest(short bool) spec.CollectRequest {
	r := spec.UsualCollection(short)
	r.Replica = l.Owners().Replica
	return r
}

// collect collects, and tells of it; because is as tellCollected has it.
func (l *Loop) collect(ctx context.Context, r spec.CollectRequest, because string) (spec.Collection, error) {
	if why := l.holding(); why != "" { // the store may be another one: it knows nobody's releases
		return spec.Collection{}, nil
	}
	c, err := l.cfg.Disk.Collect(ctx, r)
	l.describe(c.Items)
	if len(c.Items) > 0 && !r.Rehearse {
		l.measures.note(func(n *spec.Counted) { n.Collected.Add(c.Freed) })
		l.tellCollected(c.Items, because)
	}
	return c, err
}

// budgeted is what the budget bounds.
func budgeted(items []spec.DiskItem) (use spec.DiskUse) {
	for _, i := range items {
		if i.Kind.Counted() {
			use.Add(i.DiskUse)
		}
	}
	return use
}

// DiskReport says what takes room, and who needs it; while containerd doesn't
// answer, within a second and with what is missing.
func (l *Loop) DiskReport(ctx context.Context) (spec.DiskReport, error) {
	r := spec.DiskReport{At: l.cfg.Clock.Now(), Budget: l.cfg.Budget}
	var counting, err error
	r.Items, counting = l.cfg.Disk.UseNow(ctx, false)
	if len(r.Items) == 0 && counting != nil {
		return r, counting
	}
	if r.Filesystems, err = l.cfg.Disk.Filesystems(ctx); err != nil {
		return r, err
	}
	r.Counted = budgeted(r.Items)
	short, _ := shortage(plan.Space{Disks: r.Filesystems, Budget: r.Budget, Used: r.Counted.Bytes})
	if counting == nil && short != "" { // less is held then
		r.Items, counting = l.cfg.Disk.UseNow(ctx, true)
		r.Counted = budgeted(r.Items)
	}
	if counting != nil {
		r.Problem = plain(counting)
		var uncounted *spec.UncountedError
		if errors.As(counting, &uncounted) {
			r.Missing = uncounted.Kinds
		}
	}
	l.describe(r.Items)
	for _, i := range r.Items {
		if len(i.Holders) == 0 && i.Kind.Counted() {
			r.Collectable.Add(i.DiskUse)
		}
	}
	return r, nil
}

// Collect removes what nobody needs, or says what that is, with the patience that the
// agent has itself as the disk is now. All: and images that were brought a moment ago
// and are in no release.
func (l *Loop) Collect(ctx context.Context, rehearse, all bool) (spec.Collection, error) {
	if err := l.mayChange(); err != nil && !rehearse {
		return spec.Collection{}, err
	}
	short := ""
	if !all {
		short, _, _ = l.short(ctx) // if it can't be told, the collection says why
	}
	r := l.collectRequest(short != "")
	if all {
		r.Grace, r.Logs = collectAllGrace, 0
	}
	r.Rehearse = rehearse
	c, err := l.collect(ctx, r, "as `dunnage gc` asked")
	c.Short = short
	if err != nil && len(c.Items) > 0 {
		l.cfg.Log.Warn("collect what nobody needs", "error", err)
		c.Problem, err = plain(err), nil
	}
	return c, err
}

// collectAllGrace is for images between the end of their pull and the beginning of
// the deploy's hold on them.
const collectAllGrace = time.Minute

// holdName is what an operation's images are held under until its release retains
// them.
func holdName(op string) string { return "operation " + op }

// letGoOf ends the hold of an operation. What can't be let go now is at the next start.
func (l *Loop) letGoOf(op *operation) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(l.ctx), lookTimeout)
	defer cancel()
	if err := l.cfg.Images.Retain(ctx, holdName(op.ID), nil); err != nil {
		l.cfg.Log.Warn("let go of the images of an operation", "operation", op.ID, "error", err)
	}
}

// describe says of the items in the store's terms who needs them: the engine
// knows only names of leases, and replicas.
func (l *Loop) describe(items []spec.DiskItem) {
	d := describer{releases: map[string]spec.ReleaseRecord{}, shown: map[string]int{}, volumes: map[string]string{}, loop: l}
	for _, p := range l.status.Load().Projects {
		for _, s := range p.Services {
			for _, r := range s.Replicas {
				d.shown[r.Replica] = r.Release
			}
		}
	}
	for _, project := range l.state.projectNames() {
		for _, r := range l.state.history(project) {
			d.releases[retainName(project, r.Number)] = spec.ReleaseRecord{Project: project, Release: r}
			for _, v := range r.Project.Volumes {
				if !v.External {
					d.volumes[v.ID] = project
				}
			}
		}
	}
	for i := range items {
		d.item(&items[i])
	}
}

type describer struct {
	loop     *Loop
	releases map[string]spec.ReleaseRecord // by the name of what they retain
	shown    map[string]int                // replica -> the release that uses it now: the one that it was made for may be gone
	volumes  map[string]string             // ID -> project
}

func (d describer) item(i *spec.DiskItem) {
	if i.Kind == spec.DiskVolumes && i.Project == "" {
		i.Project = d.volumes[i.Name]
	}
	var holders []string
	releases := map[string][]int{}
	projects := map[string]bool{}
	for _, h := range i.Holders {
		rec, isReplica := d.loop.state.replica(h)
		release, isRelease := d.releases[h]
		op, isOp := strings.CutPrefix(h, holdName(""))
		switch {
		case isRelease:
			projects[release.Project] = true
			releases[release.Project] = append(releases[release.Project], release.Release.Number)
			h = releaseName(release.Project, release.Release.Number)
		case isReplica:
			projects[rec.Project] = true
			number := cmp.Or(d.shown[h], rec.Release)
			if !slices.Contains(releases[rec.Project], number) {
				releases[rec.Project] = append(releases[rec.Project], number)
			}
		case isOp:
			h = "operation in progress"
			if o, ok := d.loop.ops.find(op); ok {
				projects[o.Project] = true
				h = o.Kind + " of " + o.Project + " in progress"
			}
		default: // a pull's lease, or the grace of an image: no project's
		}
		holders = append(holders, h)
	}
	slices.Sort(holders)
	i.Holders = slices.Compact(holders)
	if len(releases) == 1 && len(projects) == 1 {
		for project, numbers := range releases {
			slices.Sort(numbers)
			i.Project, i.Releases = project, slices.Compact(numbers)
		}
	}
}

func releaseName(project string, number int) string {
	return fmt.Sprintf("%s release %d", project, number)
}

// trim drops the releases beyond those that are kept: somebody may have lowered
// their number since the agent before this one ran.
func (l *Loop) trim() error {
	var errs []error
	for _, name := range l.state.projectNames() {
		rec, _ := l.state.project(name)
		old := slices.DeleteFunc(l.beyond(rec, l.cfg.KeepReleases), func(r spec.ReleaseRecord) bool { return r.Release.Number == rec.Desired })
		if len(old) == 0 {
			continue
		}
		forgetReleases(&rec, old)
		if err := l.state.save(spec.Commit{Projects: []spec.ProjectRecord{rec}, DropReleases: old}); err != nil {
			errs = append(errs, err)
			continue
		}
		l.unpin(old)
	}
	return errors.Join(errs...)
}
