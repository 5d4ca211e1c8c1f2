package orchestrator

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// hold decides whether the loop may act. What a crash leaves belongs to a
// project that the store knows, since projects are stored first and
// forgotten only when nothing of them is left, and a container has a record, which is made before it and dropped
// after it; what has none says that this is the wrong store. Once the store has
// known everything, it is the right one: what appears later is left alone, told of
// and taken out of what was observed.
//
// With other pools than those that the store's addresses are of, the rules of
// what runs could neither be read nor rendered: that holds too, until an agent
// with the right ones starts.
func (l *Loop) hold(o *plan.Observed) {
	ids := l.strangers(*o)
	if l.cfg.RemoveUnknown {
		ids = nil
	}
	text := l.outsidePools()
	l.appeared = ""
	switch {
	case text != "":
	case len(ids) == 0:
		l.trusted = true
	case l.trusted:
		l.appeared = l.describeAppeared(*o, ids)
		o.Replicas = slices.DeleteFunc(o.Replicas, func(r plan.Replica) bool { return slices.Contains(ids, r.ID) })
	default:
		text = l.describeStrangers(ids)
	}
	o.Held = text != ""
	if text == l.holding() {
		return
	}
	l.held.Store(&text)
	if text == "" {
		l.cfg.Log.Info("acting: the store knows all that is here")
		return
	}
	l.cfg.Log.Error("not acting", "problem", text)
	l.events.add(spec.Event{Kind: spec.EventProblem, Message: text})
}

// strangers lists the replicas of projects that the store has never known, and
// the containers that it has no record of.
func (l *Loop) strangers(o plan.Observed) []string {
	known := l.state.projectNames()
	var ids []string
	for _, r := range o.Replicas {
		ours := func(project string) bool {
			if r.Project == "" { // only its namespace, link or files are there, which don't say
				return strings.HasPrefix(r.ID, project+"-")
			}
			return r.Project == project
		}
		if r.Exists && !r.Recorded || !slices.ContainsFunc(known, ours) {
			ids = append(ids, r.ID)
		}
	}
	return ids
}

// outsidePools says which addresses of the store aren't in the agent's pools;
// empty = all are. Without an IPv6 pool, nobody uses those of IPv6.
func (l *Loop) outsidePools() string {
	for _, name := range l.state.projectNames() {
		p, _ := l.state.project(name)
		if p.Down {
			continue
		}
		for _, n := range p.Networks {
			if why := l.outside(n.Subnet, n.Subnet6); why != "" {
				return describeOutside(fmt.Sprintf("network %s of project %s", n.ID, name), why)
			}
		}
	}
	for _, r := range l.state.replicaRecords() {
		for _, a := range r.Addresses {
			if why := l.outside(a.Subnet, a.Subnet6); why != "" {
				return describeOutside("replica "+r.ID, why)
			}
		}
	}
	return ""
}

// outside says of which family's pool a subnet isn't a part.
func (l *Loop) outside(subnet, subnet6 netip.Prefix) string {
	for _, f := range []struct {
		flag         string
		pool, subnet netip.Prefix
	}{{"--pool", l.cfg.Pool, subnet}, {"--pool6", l.cfg.Pool6, subnet6}} {
		if f.pool.IsValid() && f.subnet.IsValid() && !(f.pool.Bits() <= f.subnet.Bits() && f.pool.Contains(f.subnet.Addr())) {
			return fmt.Sprintf("%s, which isn't in %s %s", f.subnet, f.flag, f.pool)
		}
	}
	return ""
}

func describeOutside(what, why string) string {
	return fmt.Sprintf("the agent holds: %s has addresses of %s: the agent was started with another pool before; "+
		"start it with that one, or, for a new pool, take every project down first", what, why)
}

// acts notes that the store is the right one, and so are the pools.
func (l *Loop) acts() {
	select {
	case <-l.acting:
	default:
		close(l.acting)
	}
}

// Acting is closed when the loop first may act. What else the agent does to the
// host waits for it: one that holds must leave the host as it is.
func (l *Loop) Acting() <-chan struct{} { return l.acting }

// sweep removes what nothing wants any more. What it can't remove it tries again
// at the next look.
func (l *Loop) sweep(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	removed, err := l.cfg.Network.Sweep(limited)
	for _, name := range removed {
		l.cfg.Log.Warn("removed a route that an earlier agent left", "route", name)
		l.events.add(spec.Event{Kind: spec.EventRepaired, Message: "removed a route that an earlier agent left: " + name})
	}
	if err != nil && ctx.Err() == nil {
		l.cfg.Log.Warn("remove what nothing wants", "error", err)
	}
}

// describeAppeared says of the first of them what there is and where, and how to
// get rid of all: an agent that starts beside them would hold.
func (l *Loop) describeAppeared(o plan.Observed, ids []string) string {
	what := fmt.Sprintf("no container, but a namespace, a link or files (%s, %s, `ip -d link show`)",
		filepath.Join(l.cfg.RunDir, "netns", ids[0]), filepath.Join(l.cfg.RunDir, "replicas", ids[0]))
	if slices.ContainsFunc(o.Replicas, func(r plan.Replica) bool { return r.ID == ids[0] && r.Exists }) {
		what = "a container that no record is of"
	}
	them := "it"
	if len(ids) > 1 {
		them, what = "them", "of the first, "+what
	}
	return fmt.Sprintf("left alone, since nobody deployed %[1]s: %[2]s (%[3]s): %[4]s; start the agent once with --remove-unknown to remove %[1]s: an agent that is started without it finds %[1]s and changes nothing",
		them, counted(len(ids), "replica"), some(ids), what)
}

func (l *Loop) describeStrangers(ids []string) string {
	why := "it is another one, or older than they are"
	if len(l.state.projectNames()) == 0 {
		why = "it is new"
	}
	return fmt.Sprintf("the agent holds: the store in %s doesn't know %s that it finds on this host (%s): %s; "+
		"start it with the right --state-dir, restore dunnage.db, or start it once with --remove-unknown to remove them",
		l.cfg.StateDir, counted(len(ids), "replica"), some(ids), why)
}

// some names the first of them.
func some(ids []string) string {
	if len(ids) > 1 {
		return ids[0] + ", ..."
	}
	return ids[0]
}

// holding says why the loop doesn't act; empty = it does.
func (l *Loop) holding() string {
	if text := l.held.Load(); text != nil {
		return *text
	}
	return ""
}

// mayChange refuses changes while the loop holds.
func (l *Loop) mayChange() error {
	if why := l.holding(); why != "" {
		return fmt.Errorf("%s: %w", why, spec.ErrRefused)
	}
	return nil
}
