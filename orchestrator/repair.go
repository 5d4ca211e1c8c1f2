package orchestrator

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// What others damage is repaired by the actions that the plan has anyway: Apply
// makes the rules and the host's routes equal, Create completes a replica's
// network. Here that is named and told (ADR 21).

// namedDamage is how much of what was found an event names.
const namedDamage = 3

// repair is one that is under way.
type repair struct {
	damage []spec.Damage
	began  time.Time
}

// found names damage in one line.
func found(damage []spec.Damage) string {
	var parts []string
	for _, d := range damage[:min(len(damage), namedDamage)] {
		parts = append(parts, d.What)
	}
	text := strings.Join(parts, "; ")
	if more := len(damage) - namedDamage; more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	return text
}

// mend finds out which of the plan's actions are repairs, and leaves out those
// that have to wait. It returns the others, and when the first that waits is
// due; zero = none does.
func (l *Loop) mend(ctx context.Context, p plan.Plan, o plan.Observed) (actions []plan.Action, due time.Time) {
	l.endFights()
	maps.DeleteFunc(l.mending, func(id string, _ repair) bool { return len(l.waves.busy[id]) == 0 }) // it failed
	whose := l.damaged(p, o)
	if len(whose) == 0 {
		return p.Actions, time.Time{}
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	now := l.cfg.Clock.Now()
	var replicas []string
	for _, key := range whose {
		if key.ID != "" {
			replicas = append(replicas, key.ID)
		}
	}
	all, err := l.cfg.Network.Damaged(ctx, l.applied, replicas)
	if err != nil {
		l.cfg.Log.Warn("can't name what others have changed", "error", err)
		return p.Actions, time.Time{}
	}
	waits := map[string]bool{}
	for _, key := range whose {
		id := key.ID
		damage := slices.DeleteFunc(slices.Clone(all), func(d spec.Damage) bool { return d.Replica != id })
		if len(damage) == 0 {
			continue // made good meanwhile
		}
		f := l.fight(key, damage)
		l.tellFight(f, now)
		next := f.mender.damaged(now)
		if swap := id == "" && !p.Routing.Equal(l.applied); swap || !now.Before(next) {
			l.mending[id] = repair{damage, now}
			continue
		}
		waits[id] = true
		if due.IsZero() || next.Before(due) {
			due = next
		}
	}
	return slices.DeleteFunc(slices.Clone(p.Actions), func(a plan.Action) bool { return mends(a) && waits[a.Replica().ID] }), due
}

// mends reports whether the action is of a kind that repairs.
func mends(a plan.Action) bool {
	switch a.(type) {
	case plan.Apply, plan.Create:
		return true
	}
	return false
}

// damaged lists the replicas whose network the plan completes while they run,
// an empty key = the rules and the host's routes, which aren't as an Apply left them.
func (l *Loop) damaged(p plan.Plan, o plan.Observed) []spec.ReplicaKey {
	var out []spec.ReplicaKey
	for _, a := range p.Actions {
		id := a.Replica().ID
		if !mends(a) || len(l.waves.busy[id]) > 0 {
			continue
		}
		running := func(r plan.Replica) bool {
			return r.ID == id && r.Alive() && !r.Attached && r.Record.Joins == ""
		}
		if id == "" && l.laid && !o.RulesEqual || id != "" && slices.ContainsFunc(o.Replicas, running) {
			out = append(out, a.Replica())
		}
	}
	return out
}

// fight is what is known of the damage, which may be that it is new.
func (l *Loop) fight(of spec.ReplicaKey, damage []spec.Damage) *fight {
	key := of.ID
	for _, d := range damage {
		key += "\n" + d.What
	}
	if l.fights[key] == nil {
		l.fights[key] = &fight{of: of, damage: damage}
	}
	return l.fights[key]
}

// mended takes the end of an action and tells of it, if that was a repair.
func (l *Loop) mended(key spec.ReplicaKey) bool {
	r, ok := l.mending[key.ID]
	if !ok {
		return false
	}
	delete(l.mending, key.ID)
	now := l.cfg.Clock.Now()
	l.measures.repaired(r.damage)
	f := l.fight(key, r.damage)
	f.mender.repaired(now, now.Sub(r.began))
	if len(f.undone) < toldEach {
		l.tellRepaired(key, r.damage, now.Sub(r.began))
	}
	return true
}

// tellFight takes damage that is there, and tells how often it was back.
func (l *Loop) tellFight(f *fight, now time.Time) {
	f.back(now)
	if len(f.undone) < insistent || !f.told.IsZero() && now.Sub(f.told) < frequency {
		return
	}
	f.told = now
	l.cfg.Log.Warn("repairs are undone", "problem", f.text())
	l.events.add(spec.Event{Kind: spec.EventProblem, Project: f.of.Project, Service: f.of.Service, Replica: f.of.ID, Message: f.text()})
}

func (l *Loop) tellRepaired(key spec.ReplicaKey, damage []spec.Damage, took time.Duration) {
	l.cfg.Log.Warn("repaired", "found", found(damage), "replica", key.ID, "took", took)
	l.events.add(spec.Event{
		Kind: spec.EventRepaired, Project: key.Project, Service: key.Service, Replica: key.ID,
		Message: fmt.Sprintf("%s; repaired in %d ms", found(damage), took.Milliseconds()),
	})
}

// endFights forgets damage that hasn't come back.
func (l *Loop) endFights() {
	now := l.cfg.Clock.Now()
	maps.DeleteFunc(l.fights, func(_ string, f *fight) bool {
		over := now.Sub(f.seen) >= quiet
		if over && !f.told.IsZero() {
			l.events.add(spec.Event{Kind: spec.EventRepaired, Project: f.of.Project, Service: f.of.Service, Replica: f.of.ID, Message: found(f.damage) + ": no longer undone"})
		}
		return over
	})
}

// insisted are the problems of damage that somebody insists on.
func (l *Loop) insisted() []string {
	var out []string
	for _, key := range slices.Sorted(maps.Keys(l.fights)) {
		if f := l.fights[key]; !f.told.IsZero() {
			out = append(out, f.text())
		}
	}
	return out
}
