package orchestrator

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// look is what the adapters say at one time.
type look struct {
	instances []spec.Instance
	attached  []string // in part or whole
	whole     []string
	named     []netip.Addr
	equal     bool
	delivered map[string]string // replica -> fingerprint
}

// observe looks at everything. It changes nothing but the set of probes. Until
// the agent has applied rules itself they count as others than they should be:
// the first Apply also does what an earlier agent may have been killed before.
func (l *Loop) observe(ctx context.Context) (plan.Observed, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	seen, err := l.look(ctx)
	if err != nil {
		return plan.Observed{}, err
	}
	o := plan.Observed{Now: l.cfg.Clock.Now(), Applied: l.applied, RulesEqual: seen.equal && l.own, Absent: l.absent, Doubtful: l.cfg.Images.Doubtful()}
	o.Replicas = l.merge(seen)
	l.probe(o.Replicas)
	if err := l.count(ctx, o.Replicas); err != nil {
		return plan.Observed{}, err
	}
	err = l.lookOutside(ctx, &o)
	return o, err
}

// look asks engine and network side by side.
func (l *Loop) look(ctx context.Context) (look, error) {
	var (
		s                     look
		engine, net, att, del error
		wg                    sync.WaitGroup
	)
	wg.Go(func() { s.instances, engine = l.instances(ctx) })
	wg.Go(func() { s.named, s.equal, net = l.cfg.Network.Routed(ctx, l.applied) })
	wg.Go(func() { s.attached, s.whole, att = l.cfg.Network.Attached(ctx) })
	wg.Go(func() { s.delivered, del = l.cfg.Secrets.Delivered() })
	wg.Wait()
	if engine != nil && net == nil {
		l.serveBlind(ctx, s.equal)
	}
	switch {
	case engine != nil:
		return s, engine
	case net != nil:
		return s, fmt.Errorf("read nat rules: %w", net)
	case att != nil:
		return s, fmt.Errorf("list namespaces: %w", att)
	case del != nil:
		return s, fmt.Errorf("list delivered secrets: %w", del)
	}
	return s, nil
}

// names reports whether a rule names one of the replica's addresses.
func (s look) names(r spec.ReplicaRecord) bool {
	return slices.ContainsFunc(plan.Addresses(r), func(a netip.Addr) bool {
		_, found := slices.BinarySearchFunc(s.named, a, netip.Addr.Compare)
		return found
	})
}

// merge joins what engine, network, store and memory know of each replica.
func (l *Loop) merge(s look) []plan.Replica {
	all := map[string]*plan.Replica{}
	at := func(id string) *plan.Replica {
		if all[id] == nil {
			all[id] = &plan.Replica{ReplicaKey: spec.ReplicaKey{ID: id}}
		}
		return all[id]
	}
	for _, rec := range l.state.replicaRecords() {
		r := at(rec.ID)
		r.ReplicaKey, r.Recorded, r.Record = rec.ReplicaKey, true, rec
	}
	for _, i := range s.instances {
		r := at(i.ID)
		r.ReplicaKey, r.Exists, r.Phase, r.Pid = i.ReplicaKey, true, i.Phase, i.Pid
		r.StartedAt, r.ExitedAt, r.ExitCode, r.OOM = i.StartedAt, i.ExitedAt, i.ExitCode, i.OOM
		r.Limits, r.Hung, r.LogWriter, r.OOMKills = i.Limits, i.Hung, i.LogWriter, i.OOMKills
	}
	for _, id := range s.attached {
		at(id)
	}
	for _, id := range s.whole {
		at(id).Attached = true
	}
	for id, fingerprint := range s.delivered {
		at(id).Delivered = fingerprint
	}
	for _, r := range all {
		if to := all[r.Record.Joins]; to != nil {
			r.Attached = to.Attached
		}
	}
	out := make([]plan.Replica, 0, len(all))
	for _, id := range slices.Sorted(maps.Keys(all)) {
		r := all[id]
		r.Named = s.names(r.Record)
		l.recall(r)
		out = append(out, *r)
	}
	l.forget(all)
	return out
}

// recall adds what the loop remembers of the replica.
func (l *Loop) recall(r *plan.Replica) {
	if !r.Alive() {
		delete(l.stopping, r.ID)
	}
	if !r.Alive() || r.Named {
		delete(l.draining, r.ID)
	}
	r.StoppingSince, r.DrainingSince, r.Names = l.stopping[r.ID], l.draining[r.ID], l.names[r.ID]
	if r.Named && r.Alive() {
		if l.routed[r.ID].IsZero() {
			l.routed[r.ID] = l.cfg.Clock.Now()
			if r.StartedAt.Before(l.began) { // it may have been routed all the time
				l.routed[r.ID] = r.StartedAt
			}
		}
		r.RoutedSince = l.routed[r.ID]
	}
	r.Written = l.layers.of(r)
	f := l.failures[r.ID]
	r.Error, r.Errors, r.ErrorAt, r.Refused, r.NoSpace = f.text, f.count, f.at, f.limits, f.space
	if r.Phase == spec.PhaseRunning {
		r.Health, r.Detail = l.cfg.Health.Health(r.ID, r.StartedAt)
	}
}

// forget drops what is remembered of replicas that are gone. Failures to make
// a replica stay, since there is nothing of it to see yet.
func (l *Loop) forget(all map[string]*plan.Replica) {
	gone := func(id string) bool { return all[id] == nil }
	maps.DeleteFunc(l.routed, func(id string, _ time.Time) bool { return gone(id) || !all[id].Alive() })
	maps.DeleteFunc(l.names, func(id, _ string) bool { return gone(id) })
	maps.DeleteFunc(l.failures, func(id string, f failure) bool {
		return gone(id) && l.cfg.Clock.Now().Sub(f.at) > lookAnyway*10
	})
}

// probe tells the monitor which processes run.
func (l *Loop) probe(rs []plan.Replica) {
	var targets []spec.ProbeTarget
	for i := range rs {
		r := &rs[i]
		if r.Phase != spec.PhaseRunning || !r.Recorded {
			continue
		}
		targets = append(targets, spec.ProbeTarget{
			Project: r.Project, Service: r.Service, Replica: r.ID, Addr: l.asked(r.Record), StartedAt: r.StartedAt,
			Probes: r.Record.Probes, Adopted: r.StartedAt.Before(l.began), Accepted: r.Record.Accepted,
		})
	}
	l.cfg.Health.Watch(targets)
	for i := range rs { // a target that is new has only now a health to ask for
		if r := &rs[i]; r.Phase == spec.PhaseRunning {
			r.Health, r.Detail = l.cfg.Health.Health(r.ID, r.StartedAt)
		}
	}
}

// asked is where the host finds the ports of a replica; zero = nowhere.
func (l *Loop) asked(r spec.ReplicaRecord) netip.Addr {
	if to, ok := l.state.replica(r.Joins); ok {
		r = to
	}
	switch {
	case r.Network == spec.NetworkHost:
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case len(r.Addresses) > 0:
		return r.Addresses[0].Addr
	default:
		return netip.Addr{}
	}
}

// count asks for the connections of replicas that run but are no longer named:
// those that may have to be waited for. One that no rule has named since it
// started has none, and a deploy waits for every look.
func (l *Loop) count(ctx context.Context, rs []plan.Replica) error {
	var addrs []netip.Addr
	for i := range rs {
		r := &rs[i]
		known := !l.routed[r.ID].IsZero() || r.StartedAt.Before(l.began)
		if r.Phase == spec.PhaseRunning && !r.Named && known && r.StoppingSince.IsZero() {
			if r.Uncounted = l.shown[r.ID] == spec.StateWarm; r.Uncounted {
				continue // for minutes to come nobody asks, and a walk through conntrack's table takes time
			}
			addrs = append(addrs, plan.Addresses(r.Record)...)
		}
	}
	if len(addrs) == 0 {
		return nil
	}
	conns, err := l.cfg.Network.Connections(ctx, addrs)
	if err != nil {
		return fmt.Errorf("count connections: %w", err)
	}
	for i := range rs {
		for _, a := range plan.Addresses(rs[i].Record) {
			rs[i].Conns += conns[a]
		}
	}
	return nil
}

// publish makes the snapshot that readers see, and events of what changed.
func (l *Loop) publish(p plan.Plan, o plan.Observed) {
	l.routing.Store(&p.Routing)
	l.tellHung(o.Replicas)
	l.tellUnwritten(o.Replicas)
	l.tellOOM(o.Replicas)
	l.tellLeftDead(p.Status)
	problems := slices.Concat(l.cfg.Notices, l.foreign, l.insisted(), l.stuck())
	if tight := l.tight.Load(); tight != nil {
		problems = append(problems, tight.text())
	}
	if l.appeared != "" {
		problems = append(problems, l.appeared)
	}
	if unkept := l.tellUnkept(); unkept != "" {
		problems = append(problems, unkept)
	}
	problems = append(doubts(o.Doubtful), problems...)
	if why := l.holding(); why != "" {
		problems = append([]string{why}, problems...)
	}
	if locked := l.cfg.Vault.Status().Locked; locked != "" && l.state.hasSecrets() {
		problems = append([]string{locked}, problems...)
	}
	var warnings []string
	if text := l.nearly.Load(); text != nil {
		warnings = []string{*text}
	}
	l.status.Store(&spec.Status{At: o.Now, Started: l.began, Projects: p.Status, Problems: problems, Warnings: warnings})
	if !l.hasLooked() {
		close(l.looked)
	}
	now, late := map[string]spec.ReplicaState{}, map[string]time.Time{}
	for _, project := range p.Status {
		for _, s := range project.Services {
			for i, r := range s.Replicas {
				s.Replicas[i].Checks = l.cfg.Health.Checks(r.Replica, r.Started)
				now[r.Replica] = r.State
				l.transition(r)
				if l.isLate(r, o.Now) {
					late[r.Replica] = r.Started
				}
			}
		}
	}
	l.shown, l.late = now, late
	l.tellReach(p.Status, o.Reach)
}

// lateAfter is how long a replica may start before somebody wants to know what
// it is waited for: most are ready by then, and a rollout ends for want of
// progress only after a minute.
const lateAfter = 10 * time.Second

// isLate reports whether the replica's run was told of as late, and tells of it
// once.
func (l *Loop) isLate(r spec.ReplicaStatus, now time.Time) bool {
	if r.State != spec.StateStarting || r.Started.IsZero() || now.Sub(r.Started) < lateAfter || r.Detail == "" {
		return false
	}
	if !l.late[r.Replica].Equal(r.Started) {
		l.events.add(spec.Event{
			Kind: spec.EventLate, Project: r.Project, Service: r.Service, Replica: r.Replica,
			Message: fmt.Sprintf("%s isn't ready after %s: %s", r.Replica, lateAfter, r.Detail),
		})
	}
	return true
}

// transition tells of a replica that became ready or unhealthy.
func (l *Loop) transition(r spec.ReplicaStatus) {
	before := l.shown[r.Replica]
	if before == r.State || before == spec.StateUnreachable && r.State == spec.StateReady { // the service's own event tells of that
		return
	}
	kind := map[spec.ReplicaState]spec.EventKind{
		spec.StateReady: spec.EventReady, spec.StateUnhealthy: spec.EventUnhealthy,
	}[r.State]
	if kind != "" {
		l.events.add(spec.Event{
			Kind: kind, Project: r.Project, Service: r.Service, Replica: r.Replica,
			Message: strings.TrimSuffix(r.Replica+" is "+string(r.State)+": "+r.Detail, ": "),
		})
	}
}
