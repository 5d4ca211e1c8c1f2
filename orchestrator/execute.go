package orchestrator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// Bounds of a wave.
const (
	// actionTimeout bounds one action. Creating a task takes 0.1 s on an idle
	// machine; a first fill of a large volume is what needs longer.
	actionTimeout = 30 * time.Second
	// parallel is how many actions run side by side. They wait for containerd
	// and the kernel more than they compute.
	parallel = 8
	// starts bounds the slow actions of one wave, so that the next look, which
	// takes the dead out of the rules, isn't far.
	starts = 8
)

// limit puts what frees users of a dead replica first and leaves all but a few
// slow actions to the next plan. Projects take turns at those, and what comes
// goes before what leaves: thousands of removals hold nobody's deploy up.
func limit(actions []plan.Action) []plan.Action {
	var first, coming, leaving []plan.Action
	for _, a := range actions {
		switch a.(type) {
		case plan.Create, plan.Start:
			coming = append(coming, a)
		case plan.Remove:
			leaving = append(leaving, a)
		default:
			first = append(first, a)
		}
	}
	var rounds [][]plan.Action // in each, one action of a project
	turns := map[string]int{}
	for _, a := range append(coming, leaving...) {
		project := a.Replica().Project
		n := turns[project]
		turns[project]++
		if n == len(rounds) {
			rounds = append(rounds, nil)
		}
		rounds[n] = append(rounds[n], a)
	}
	slow := slices.Concat(rounds...)
	return append(first, slow[:min(len(slow), starts)]...)
}

// act does one action. What it does is idempotent, and NotFound is success on
// the way down.
func (l *Loop) act(ctx context.Context, a plan.Action) error {
	switch a := a.(type) {
	case plan.Create:
		return l.create(ctx, a)
	case plan.Start:
		return l.start(ctx, a)
	case plan.Limit:
		return gone(l.cfg.Engine.Limit(ctx, a.Key.ID, a.Limits))
	case plan.RecordExit:
		return l.recordExit(a)
	case plan.RecordAccept:
		return l.update(a.Key.ID, func(r *spec.ReplicaRecord) { r.Accepted = true })
	case plan.Apply:
		return l.apply(ctx, a.Routing)
	case plan.Deliver:
		return l.redeliver(ctx, a)
	case plan.WriteNames:
		return l.cfg.Network.WriteNames(ctx, a.Endpoint)
	case plan.Drain:
		return nil // noting it is all
	case plan.Stop:
		return l.stop(ctx, a)
	case plan.Kill:
		return gone(l.cfg.Engine.Signal(ctx, a.Key.ID, "SIGKILL"))
	case plan.Renew:
		return l.exchange(ctx, a)
	case plan.Remove:
		return l.remove(ctx, a)
	default:
		panic(fmt.Sprintf("action %T has no executor", a))
	}
}

func gone(err error) error {
	if errors.Is(err, spec.ErrNotFound) {
		return nil
	}
	return err
}

// create records the replica with its addresses first, so that whatever comes
// into being after has an owner in the store.
func (l *Loop) create(ctx context.Context, a plan.Create) error {
	rec, err := l.record(a)
	if err != nil {
		return err
	}
	desired := l.state.desired()
	p, ok := desired.Project(a.Key.Project)
	if !ok {
		return nil // taken down meanwhile
	}
	e, err := endpoint(desired, p, a.Service, rec)
	if err != nil {
		return err
	}
	owner := cmp.Or(rec.Joins, rec.ID)
	var attach, create error
	var wg sync.WaitGroup
	if owner == rec.ID {
		wg.Go(func() { attach = l.cfg.Network.Attach(ctx, e) })
	}
	wg.Go(func() {
		create = l.cfg.Engine.Create(ctx, spec.CreateRequest{
			ReplicaKey: a.Key, Image: a.Image, Container: a.Service.Container, Limits: a.Service.Limits, Logging: a.Service.Logging, Hostname: e.Hostname,
			NetNS: l.cfg.Network.Namespace(owner), Files: l.cfg.Network.Files(owner), Secrets: l.cfg.Secrets.Paths(a.Key.ID, a.Service.Container),
		})
	})
	wg.Wait()
	if attach != nil {
		attach = fmt.Errorf("attach to the network: %w", attach)
	}
	return errors.Join(attach, create)
}

// endpoint is plan.Endpoint with the name of the host where that is meant.
func endpoint(d plan.Desired, p plan.Project, s spec.Service, r spec.ReplicaRecord) (spec.Endpoint, error) {
	e := plan.Endpoint(d, p, s, r)
	if e.Hostname != "" {
		return e, nil
	}
	var err error
	if e.Hostname, err = os.Hostname(); err != nil {
		return e, fmt.Errorf("ask for the host's name: %w", err)
	}
	return e, nil
}

func (l *Loop) record(a plan.Create) (spec.ReplicaRecord, error) {
	l.recording.Lock()
	defer l.recording.Unlock()
	if rec, ok := l.state.replica(a.Key.ID); ok {
		return rec, nil
	}
	p, ok := l.state.project(a.Key.Project)
	if !ok {
		return spec.ReplicaRecord{}, fmt.Errorf("project %s: %w", a.Key.Project, spec.ErrNotFound)
	}
	release, ok := l.state.release(a.Key.Project, a.Release)
	if !ok {
		return spec.ReplicaRecord{}, fmt.Errorf("release %d of project %s: %w", a.Release, a.Key.Project, spec.ErrNotFound)
	}
	addrs, err := l.alloc.endpoint(p, release.Project, a.Service, l.cfg.Clock.Now())
	if err != nil {
		return spec.ReplicaRecord{}, fmt.Errorf("allocate address: %w", err)
	}
	rec := spec.ReplicaRecord{
		ReplicaKey: a.Key, Image: a.Image.Pinned(), Release: a.Release, Addresses: addrs,
		Network: a.Service.Container.Network, Joins: a.Joins,
		Drain: a.Service.Drain, StopGrace: a.Service.Container.StopGrace,
		Restart: a.Service.Restart, Probes: a.Service.Container.Probes,
	}
	return rec, l.state.save(spec.Commit{Replicas: []spec.ReplicaRecord{rec}})
}

// update changes a replica's record, with what the audit is to say of it; one
// that is gone stays gone.
func (l *Loop) update(id string, change func(*spec.ReplicaRecord), audit ...spec.AuditEntry) error {
	l.recording.Lock()
	defer l.recording.Unlock()
	rec, ok := l.state.replica(id)
	if !ok {
		return nil
	}
	change(&rec)
	return l.saveAudited(spec.Commit{Replicas: []spec.ReplicaRecord{rec}}, audit...)
}

// start records the run before it begins: if the host goes down in between,
// the next boot knows that there may have been one.
func (l *Loop) start(ctx context.Context, a plan.Start) error {
	reads := l.reads(a.Key)
	if locked := l.cfg.Vault.Status().Locked; locked != "" && len(reads) > 0 {
		return errors.Join(fmt.Errorf("start %s: %s", a.Key.ID, locked), spec.ErrUnavailable) // no run of it begins
	}
	if err := l.lacking(a.Key); err != nil {
		return errors.Join(fmt.Errorf("start %s: %w", a.Key.ID, err), spec.ErrUnavailable)
	}
	owner := l.user(ctx, a.Key.ID)
	err := l.update(a.Key.ID, func(r *spec.ReplicaRecord) {
		if a.Restart && !r.Requested && !r.Running { // who stopped it and starts it again knows; a run that never began counts once
			r.Restarts++
		}
		r.Running, r.Requested, r.Unwell, r.Asked = true, false, false, false
	}, reads...)
	if err != nil {
		return err
	}
	var attached error
	var attaching sync.WaitGroup
	if a.Restart {
		attaching.Go(func() { attached = l.reattach(ctx, a.Key) })
	}
	delivered := l.deliver(ctx, a.Key, owner, nil)
	attaching.Wait()
	if err := errors.Join(attached, delivered); err != nil {
		return err
	}
	return l.cfg.Engine.Start(ctx, a.Key.ID)
}

// reattach completes what is missing in the replica's namespace, where no look
// sees it: what broke there may be why the process before this one ended.
func (l *Loop) reattach(ctx context.Context, key spec.ReplicaKey) error {
	rec, ok := l.state.replica(key.ID)
	desired := l.state.desired()
	p, there := desired.Project(key.Project)
	if !ok || !there || rec.Joins != "" {
		return nil
	}
	s, ok := p.Release.Project.Service(key.Service)
	if !ok { // an old one, of a service that is no longer declared
		return nil
	}
	e, err := endpoint(desired, p, s, rec)
	if err != nil {
		return err
	}
	if err := l.cfg.Network.Attach(ctx, e); err != nil {
		return fmt.Errorf("attach to the network: %w", err)
	}
	return nil
}

func (l *Loop) recordExit(a plan.RecordExit) error {
	return l.update(a.Key.ID, func(r *spec.ReplicaRecord) {
		r.Running, r.Exit = false, &a.Exit
		r.Failures = plan.Failures(*r, a.Run)
		if r.Requested {
			r.Failures = 0
		}
	})
}

func (l *Loop) stop(ctx context.Context, a plan.Stop) error {
	if err := l.update(a.Key.ID, func(r *spec.ReplicaRecord) {
		r.Requested, r.Unwell, r.Outgrown = !a.Unwell, a.Unwell, a.Outgrown
	}); err != nil {
		return err
	}
	return gone(l.cfg.Engine.Signal(ctx, a.Key.ID, ""))
}

// remove forgets the record last: until then a crash leaves an owner for what
// is left.
func (l *Loop) remove(ctx context.Context, a plan.Remove) error {
	if err := gone(l.cfg.Engine.Remove(ctx, a.Key.ID)); err != nil {
		return err
	}
	if err := gone(l.cfg.Network.Detach(ctx, a.Key.ID)); err != nil {
		return fmt.Errorf("detach from the network: %w", err)
	}
	if err := l.cfg.Secrets.Withdraw(ctx, a.Key.ID); err != nil {
		return fmt.Errorf("remove its secrets: %w", err)
	}
	rec, ok := l.state.replica(a.Key.ID)
	if !ok {
		return nil
	}
	now := l.cfg.Clock.Now()
	c := spec.Commit{DropReplicas: []string{a.Key.ID}, DropQuarantine: l.state.expired(now)}
	for _, addr := range plan.Addresses(rec) {
		c.Quarantine = append(c.Quarantine, spec.QuarantinedAddress{Addr: addr, Until: now.Add(quarantineTime)})
		// Its quarantine before this use, which is over, isn't this one.
		c.DropQuarantine = slices.DeleteFunc(c.DropQuarantine, func(a netip.Addr) bool { return a == addr })
	}
	l.recording.Lock()
	defer l.recording.Unlock()
	return l.state.save(c)
}

// expired lists the quarantined addresses whose time is over.
func (s *state) expired(now time.Time) []netip.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []netip.Addr
	for a, until := range s.quarantine {
		if !now.Before(until) {
			out = append(out, a)
		}
	}
	return out
}
