package plan

import (
	"math"
	"slices"
	"time"

	"dunnage/spec"
)

// Make decides what to do next.
func Make(d Desired, o Observed) Plan {
	b := &builder{desired: d, now: o.Now, observed: o, claimed: map[string]bool{}, joined: joined(o), stays: map[string]bool{}, hasty: map[string]*view{}}
	var all []*view
	for i := range d.Projects {
		p := &d.Projects[i]
		vs := views(p, o)
		for _, v := range vs {
			b.staying(v)
		}
		for _, v := range vs {
			b.service(v)
		}
		all = append(all, vs...)
	}
	b.plan.Absent = absences(all, o)
	for _, v := range all {
		b.wakeAt(b.plan.Absent[v.path()].Until)
	}
	b.plan.Routing = routes(d, all, b.plan.Absent, o.Now)
	b.plan.Visits = visits(all, b.plan.Routing, o.Fronts)
	find(all, b.plan.Visits, o)
	for i := range o.Replicas {
		if r := &o.Replicas[i]; !b.claimed[r.ID] && !b.staysBeside(r) && !standsBy(all, r, o.Committed) {
			b.retire(r, true)
		}
	}
	if (!o.RulesEqual || !b.plan.Routing.Equal(o.Applied)) && !b.postpone(o) {
		b.plan.Actions = append(b.plan.Actions, Apply{b.plan.Routing})
	}
	applied := o.RulesEqual && b.plan.Routing.Equal(o.Applied)
	for i := range d.Projects {
		p := &d.Projects[i]
		if p.Rolling() {
			b.plan.Rollout = append(b.plan.Rollout, b.rollout(p, all, applied))
		}
	}
	b.plan.Status = describe(d, all, b.plan.Absent, o)
	return b.plan
}

// postpone reports whether the rules can wait for the next look: they move no
// connection, and creates are at hand. A deploy's new networks and empty routes
// take as long to commit as a process to start, and then run beside the starts.
func (b *builder) postpone(o Observed) bool {
	creates := slices.ContainsFunc(b.plan.Actions, func(a Action) bool { _, ok := a.(Create); return ok })
	if !creates || !o.RulesEqual {
		return false
	}
	backends := map[string]bool{}
	for _, s := range b.plan.Routing.Services {
		for _, t := range s.Backends {
			backends[t.Replica] = true
		}
	}
	for i := range o.Replicas {
		if r := &o.Replicas[i]; r.Named != backends[r.ID] {
			return false
		}
	}
	return true
}

// builder collects a plan.
type builder struct {
	desired  Desired
	now      time.Time
	observed Observed
	claimed  map[string]bool  // replicas that some service wants or keeps
	joined   map[string]bool  // replicas whose network others share
	stays    map[string]bool  // replicas that aren't on their way out
	hasty    map[string]*view // services, "project/name", whose old replicas make room first
	plan     Plan
}

func joined(o Observed) map[string]bool {
	out := map[string]bool{}
	for _, r := range o.Replicas {
		out[r.Record.Joins] = true
	}
	return out
}

func (b *builder) do(a Action) { b.plan.Actions = append(b.plan.Actions, a) }

// wakeAt asks for another look at t, if that is to come.
func (b *builder) wakeAt(t time.Time) {
	if !t.After(b.now) {
		return
	}
	if b.plan.Wake.IsZero() || t.Before(b.plan.Wake) {
		b.plan.Wake = t
	}
}

// Poll intervals for what sends no event.
const (
	pollDrain = 100 * time.Millisecond // connections leaving conntrack
	pollLost  = 50 * time.Millisecond  // a process whose shim died
)

func (b *builder) service(v *view) {
	backends := v.backends()
	b.wakeAt(v.update.wake)
	b.wakeAt(v.rampWakes(b.now))
	for _, key := range v.missing {
		if !v.waits(key) && v.mayRun(key) {
			b.create(v, &Replica{ReplicaKey: key})
		}
	}
	for _, r := range v.current {
		b.claimed[r.ID] = true
		switch {
		case v.stopped:
			b.rest(r)
		case v.mayRun(r.ReplicaKey) || r.Alive():
			b.ensure(v, r)
			if r.ID == v.leaves {
				b.stop(r, v.howToLeave(r))
			} else {
				b.heal(v, r)
			}
		}
		b.names(v, r)
		b.limit(v, r)
		b.deliver(v, r)
	}
	for _, r := range v.others {
		switch {
		case v.rests(r):
			b.claimed[r.ID] = true
			b.rest(r)
		case v.kept(r, backends):
			b.claimed[r.ID] = true
			b.keep(v, r)
		case b.keepWarm(v, r):
			b.claimed[r.ID] = true
		}
	}
}

// ensure brings a wanted replica a step nearer to running.
func (b *builder) ensure(v *view, r *Replica) {
	if !r.Recorded || !r.Exists || r.detached() {
		if !v.waits(r.ReplicaKey) || r.Alive() {
			b.create(v, r)
		}
		return
	}
	if !r.Attached {
		return // who it joins is mended first
	}
	b.run(v, r, v.waits(r.ReplicaKey))
}

// keep lets an old replica carry the service. One that was stopped on request
// isn't brought back for a rollout, but is where the stop and the start came while
// that was paused.
func (b *builder) keep(v *view, r *Replica) {
	comes := r.Alive() || !r.Record.Requested
	if good := v.project.Good; comes && r.detached() && r.Generation == v.goodGen {
		service, _ := good.Project.Service(v.Name)
		b.complete(r, good, service)
		return
	}
	again := v.project.Record.Paused != "" && !slices.Contains(v.project.Record.Held, v.Name)
	if r.Alive() || !r.Record.Requested || again {
		b.run(v, r, false)
	}
}

func (b *builder) create(v *view, r *Replica) { b.complete(r, v.source(), v.Service) }

// complete makes what is missing of the replica, as the release has it.
func (b *builder) complete(r *Replica, of *spec.Release, service spec.Service) {
	if t := retryAt(r); b.now.Before(t) {
		b.wakeAt(t)
		return
	}
	b.do(Create{Key: r.ReplicaKey, Release: of.Number, Service: service, Image: of.Images[service.Name], Joins: of.Joined(service, r.Number)})
}

// run keeps an existing replica running. While waiting is set it isn't started
// for the first time since it was created or the host booted; one that exits
// later is restarted whatever it depends on does.
func (b *builder) run(v *view, r *Replica, waiting bool) {
	switch r.Phase {
	case spec.PhaseRunning, spec.PhasePaused:
		if !r.StoppingSince.IsZero() { // it was on the way out: a process can't be asked back
			b.escalate(r)
		} else if r.Health == spec.HealthHealthy && !r.Record.Accepted && asksAcceptance(r.Record) {
			b.do(RecordAccept{r.ReplicaKey})
		}
	case spec.PhaseLost:
		b.wakeAt(b.now.Add(pollLost))
	case spec.PhaseCreated, spec.PhaseExited:
		switch {
		case r.begins():
			if !v.mustWait(r) {
				b.tryStart(r, retryAt(r))
			}
		case r.Record.Running:
			b.recordExit(r)
		case r.Record.Outgrown > 0:
			b.renew(r)
		case r.Record.Exit != nil || !waiting:
			b.start(v, r, waiting)
		}
	}
}

func asksAcceptance(r spec.ReplicaRecord) bool {
	return slices.ContainsFunc(r.Probes, func(p spec.Probe) bool { return p.Kind == spec.ProbeAccept })
}

// recordExit stores an exit. When the run left no trace, it ended now, with
// 255: either its start failed, or the host went down under it, which is no
// failure of its own.
func (b *builder) recordExit(r *Replica) {
	a := RecordExit{
		Key: r.ReplicaKey, Run: r.ExitedAt.Sub(r.StartedAt),
		Exit: spec.Exit{At: r.ExitedAt, Code: r.ExitCode, OOM: r.OOM, Disk: r.Record.Outgrown},
	}
	if r.Phase == spec.PhaseCreated {
		a.Exit, a.Run = spec.Exit{At: b.now, Code: 255, Lost: r.Errors == 0}, math.MaxInt64
		if r.Errors > 0 {
			a.Run = 0
		}
	}
	b.do(a)
}

func (b *builder) start(v *view, r *Replica, waiting bool) {
	again := r.Record.Exit != nil
	// One that was stopped on request and is wanted again (stop, then start)
	// runs whatever its policy says.
	if again && !restarts(r.Record) && !r.Record.Requested {
		return
	}
	// No container under a recorded exit: the host has booted since, and the
	// order of the manifest holds as at a deploy.
	if r.Phase == spec.PhaseCreated && waiting {
		return
	}
	if r.Named || v.mustWait(r) {
		return // the next look sees it unnamed, or the others gone
	}
	due := retryAt(r)
	if again {
		if t := startsAgainAt(r.Record); t.After(due) {
			due = t
		}
	}
	b.tryStart(r, due)
}

func (b *builder) tryStart(r *Replica, due time.Time) {
	if !r.Attached {
		return // an old one, since the host booted: who it joins isn't wanted any more
	}
	if doubt(b.observed.Doubtful, r.Record.Image) != "" {
		return // until it is verified, which wakes us
	}
	if b.now.Before(due) {
		b.wakeAt(due)
		return
	}
	b.do(Start{Key: r.ReplicaKey, Restart: r.Record.Exit != nil})
}

// rest keeps a replica of a stopped service: no process, but nothing lost.
func (b *builder) rest(r *Replica) {
	switch {
	case r.Alive():
		b.stop(r, Stop{})
	case r.Exists && r.Record.Running:
		b.recordExit(r)
	}
}

// retire takes a replica that nobody wants out of the world, one observed step
// at a time.
func (b *builder) retire(r *Replica, remove bool) {
	switch {
	case r.Alive():
		b.stop(r, Stop{})
	case r.Named:
		// The Apply of this plan frees it.
	case r.Recorded && r.Exists && r.Record.Running:
		b.recordExit(r)
	case remove && !b.joined[r.ID]: // a network goes after all who share it: their way back leads into the same one
		if t := retryAt(r); b.now.Before(t) {
			b.wakeAt(t)
			return
		}
		b.do(Remove{r.ReplicaKey})
	}
}

// stop ends a process that may have connections: only once no rule names it,
// and after those it has are gone or out of time. How is the action that it
// comes to.
func (b *builder) stop(r *Replica, how Stop) {
	switch {
	case r.Phase == spec.PhaseLost:
		b.wakeAt(b.now.Add(pollLost))
	case r.Named:
		// The Apply of this plan frees it.
	case !r.StoppingSince.IsZero():
		b.escalate(r)
	case r.Uncounted:
		b.wakeAt(b.now.Add(time.Millisecond)) // it isn't warm any more, so the next look counts
	case b.drainsWithOwner(r):
		// What it still answers are connections of who it joins, which wakes us.
	case b.drained(r) && b.dependedOn(r):
		// Those that depend on it stop first, and wake us.
	case b.drained(r):
		how.Key = r.ReplicaKey
		b.do(how)
	case r.DrainingSince.IsZero():
		b.do(Drain{Key: r.ReplicaKey, Conns: r.Conns, Until: b.now.Add(b.drain(r))})
	default:
		b.wakeAt(r.DrainingSince.Add(b.drain(r)))
		b.wakeAt(b.now.Add(pollDrain))
	}
}

// dependedOn reports whether a process may still run of a service that depends
// on the replica's and is to stop with it: as it is started last, it is stopped
// first. One whose shim is gone isn't waited for.
func (b *builder) dependedOn(r *Replica) bool {
	p, stops := b.stoppingWith(r)
	for _, s := range p.Release.Project.Services {
		if !stops(s.Name) || !slices.ContainsFunc(s.DependsOn, func(d spec.Dependency) bool { return d.Service == r.Service }) {
			continue
		}
		if slices.ContainsFunc(b.observed.Replicas, func(o Replica) bool {
			return o.Project == r.Project && o.Service == s.Name && o.Alive() && o.Phase != spec.PhaseLost
		}) {
			return true
		}
	}
	return false
}

// stoppingWith is the replica's project, and which of its services are to stop
// if the replica's is: all of one that is down, else those stopped on request.
func (b *builder) stoppingWith(r *Replica) (Project, func(service string) bool) {
	if i := slices.IndexFunc(b.desired.Down, func(p Project) bool { return p.Record.Name == r.Project }); i >= 0 {
		return b.desired.Down[i], func(string) bool { return true }
	}
	p, _ := b.desired.Project(r.Project)
	if !slices.Contains(p.Record.Stopped, r.Service) {
		return Project{}, nil
	}
	return p, func(service string) bool { return slices.Contains(p.Record.Stopped, service) }
}

// drained reports whether the connections of a replica that no rule names are
// gone or out of time.
func (b *builder) drained(r *Replica) bool {
	limit := b.drain(r)
	if r.Conns == 0 || limit <= 0 {
		return true
	}
	return !r.DrainingSince.IsZero() && !b.now.Before(r.DrainingSince.Add(limit))
}

// escalate kills a process that outlived its grace period.
func (b *builder) escalate(r *Replica) {
	end := r.StoppingSince.Add(r.Record.StopGrace.Std())
	if b.now.Before(end) {
		b.wakeAt(end)
		return
	}
	b.do(Kill{r.ReplicaKey})
	b.wakeAt(b.now.Add(pollLost))
}

func (b *builder) names(v *view, r *Replica) {
	if !r.Recorded || !r.Exists || !r.Attached || r.Record.Joins != "" {
		return
	}
	e := Endpoint(b.desired, *v.project, v.Service, r.Record)
	if Fingerprint(e.Names) != r.Names {
		b.do(WriteNames{Key: r.ReplicaKey, Endpoint: e})
	}
}

// rollout says how far a project's desired release is. A service that the
// release leaves as it was neither fails nor delays it.
func (b *builder) rollout(p *Project, all []*view, applied bool) Rollout {
	out := Rollout{Project: p.Record.Name, Converged: applied}
	var touched []*view
	for _, v := range all {
		if v.project != p || v.spared() {
			continue
		}
		touched = append(touched, v)
		if !v.settled(b.now) || v.awaits(b.observed.Committed) != "" {
			out.Converged = false
		}
		cause, due := v.shutOut(b.now)
		b.wakeAt(due)
		if out.Failed == "" && p.Record.Paused == "" {
			f := v.failed(b.now)
			if f.cause == "" && cause != "" {
				f = v.deaf(cause)
			}
			out.Failed, out.Culprit, out.Action = f.cause, f.replica, v.policy().OnFailure
			if f.unreached {
				out.Unreached = v.Name
			}
		}
		b.wakeAt(v.settles(b.now))
	}
	for _, v := range touched { // which fail for another one, if that doesn't fail itself
		if r := v.stuck(); r != nil && r == v.awaitsDead && out.Failed == "" && p.Record.Paused == "" {
			why, _ := spec.SplitProblem(v.waiting)
			out.Failed, out.Culprit, out.Action = v.Name+" "+why, r.ReplicaKey, v.policy().OnFailure
		}
	}
	if out.Failed != "" {
		out.Converged = false
	}
	return out
}
