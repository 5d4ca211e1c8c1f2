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
// network. Here that is named and told, and done less often where somebody
// insists (ADR 21).

const (
	// undoneSoon after a repair, the same damage means that somebody doesn't
	// want it repaired.
	undoneSoon = 10 * time.Second
	// repairsAtOnce is how many repairs that are undone soon are done without
	// delay. Who tries something out by hand does it less often.
	repairsAtOnce = 12
	// After these there is a shortPause between two repairs. When as many were
	// of this damage and nothing else in between, which is a program that
	// insists, it doubles with each to longestPause.
	shortPause   = 250 * time.Millisecond
	longestPause = time.Minute
	// namedDamage is how much of what was found an event names.
	namedDamage = 3
)

// repair is one that is under way.
type repair struct {
	damage []spec.Damage
	began  time.Time
}

// fight is about damage that comes back.
type fight struct {
	damage  []spec.Damage
	repairs int       // that were undone soon, the last one included
	row     int       // of them without a repair of other damage in between
	since   time.Time // the first of them
	last    time.Time // the last of them
	undone  time.Time // when it was first seen after that; zero = it wasn't
	seen    time.Time // when it was seen last
}

func (f *fight) fighting() bool { return f.repairs > repairsAtOnce }

// pause is the time between the last repair and the next.
func (f *fight) pause() time.Duration {
	if !f.fighting() {
		return 0
	}
	return min(shortPause<<min(max(f.row-repairsAtOnce, 0), 10), longestPause)
}

// undoneEachTime marks the problems that tell of a fight.
const undoneEachTime = "undone by another program each time"

func (f *fight) text() string {
	return fmt.Sprintf("%s: repaired %d times since %s, and %s. It is now repaired once in %s: "+
		"find the program that sets it, and let it leave alone what is dunnage's", found(f.damage), f.repairs, f.since.Format(time.TimeOnly), undoneEachTime, f.pause())
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
	all, err := l.cfg.Network.Damaged(ctx, l.applied, slices.DeleteFunc(slices.Clone(whose), func(id string) bool { return id == "" }))
	if err != nil {
		l.cfg.Log.Warn("can't name what others have changed", "error", err)
		return p.Actions, time.Time{}
	}
	now := l.cfg.Clock.Now()
	waits := map[string]bool{}
	for _, id := range whose {
		damage := slices.DeleteFunc(slices.Clone(all), func(d spec.Damage) bool { return d.Replica != id })
		if len(damage) == 0 {
			continue // made good meanwhile
		}
		f := l.fight(damage)
		if f.seen = now; f.undone.IsZero() {
			f.undone = now
		}
		next := f.last.Add(f.pause())
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
// "" = the rules and the host's routes, which aren't as an Apply left them.
func (l *Loop) damaged(p plan.Plan, o plan.Observed) []string {
	var out []string
	for _, a := range p.Actions {
		id := a.Replica().ID
		if !mends(a) || len(l.waves.busy[id]) > 0 {
			continue
		}
		running := func(r plan.Replica) bool {
			return r.ID == id && r.Alive() && !r.Attached && r.Record.Joins == ""
		}
		if id == "" && l.laid && !o.RulesEqual || id != "" && slices.ContainsFunc(o.Replicas, running) {
			out = append(out, id)
		}
	}
	return out
}

// fight is what is known of the damage, which may be that it is new.
func (l *Loop) fight(damage []spec.Damage) *fight {
	key := ""
	for _, d := range damage {
		key += d.Replica + "\x00" + d.What + "\n"
	}
	if l.fights[key] == nil {
		l.fights[key] = &fight{damage: damage}
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
	l.tellRepaired(key, r.damage, now.Sub(r.began))
	f := l.fight(r.damage)
	if f.last.IsZero() || f.undone.Sub(f.last) >= undoneSoon {
		f.repairs, f.row, f.since = 0, 0, now
	}
	for _, g := range l.fights {
		if g.damage[0].Replica == f.damage[0].Replica && g.last.After(f.last) {
			f.row = 0
		}
	}
	f.repairs, f.row, f.last, f.undone = f.repairs+1, f.row+1, now, time.Time{}
	if f.repairs == repairsAtOnce+1 {
		l.cfg.Log.Warn("repairs are undone", "problem", f.text())
		l.events.add(spec.Event{Kind: spec.EventProblem, Project: key.Project, Service: key.Service, Replica: key.ID, Message: f.text()})
	}
	return true
}

func (l *Loop) tellRepaired(key spec.ReplicaKey, damage []spec.Damage, took time.Duration) {
	l.measures.repaired(damage)
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
		over := now.Sub(f.last) >= undoneSoon && now.Sub(f.seen) >= undoneSoon
		if over && f.fighting() {
			l.events.add(spec.Event{Kind: spec.EventRepaired, Message: found(f.damage) + ": no longer undone"})
		}
		return over
	})
}

// insisted are the problems of damage that somebody insists on.
func (l *Loop) insisted() []string {
	var out []string
	for _, key := range slices.Sorted(maps.Keys(l.fights)) {
		if f := l.fights[key]; f.fighting() {
			out = append(out, f.text())
		}
	}
	return out
}
