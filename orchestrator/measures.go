package orchestrator

import (
	"maps"
	"sync"
	"time"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// measures counts what the loop does, to be asked for at any time: numbers cost
// nothing while nobody asks.
type measures struct {
	mu      sync.Mutex
	c       spec.Counted
	commits int // of rules, when the last Apply ended
}

func newMeasures() *measures {
	return &measures{c: spec.Counted{
		Operations: map[spec.OperationCount]uint64{}, Durations: map[string]spec.Histogram{}, Repairs: map[spec.DamageKind]uint64{},
		Actions: map[spec.ActionCount]spec.Histogram{},
		Look:    spec.NewHistogram(spec.WorkBounds), Plan: spec.NewHistogram(spec.WorkBounds), Swap: spec.NewHistogram(spec.WorkBounds),
	}}
}

// note changes what is counted.
func (m *measures) note(f func(*spec.Counted)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(&m.c)
}

// ended counts an operation. Of projects that are gone only the last is known:
// names of which nothing was ever deployed must not add up.
func (m *measures) ended(op spec.Operation, known func(project string) bool) {
	m.note(func(c *spec.Counted) {
		maps.DeleteFunc(c.Operations, func(k spec.OperationCount, _ uint64) bool { return k.Project != op.Project && !known(k.Project) })
		c.Operations[spec.OperationCount{Project: op.Project, Kind: op.Kind, Outcome: op.State}]++
		h, found := c.Durations[op.Kind]
		if !found {
			h = spec.NewHistogram(spec.DeployBounds)
		}
		h.Observe(op.Ended.Sub(op.Started))
		c.Durations[op.Kind] = h
	})
}

// repaired counts each kind once a repair.
func (m *measures) repaired(damage []spec.Damage) {
	kinds := map[spec.DamageKind]bool{}
	for _, d := range damage {
		kinds[d.Kind] = true
	}
	m.note(func(c *spec.Counted) {
		for kind := range kinds {
			c.Repairs[kind]++
		}
	})
}

// looked takes how long a look took, and whether it succeeded.
func (m *measures) looked(took time.Duration, err error) {
	m.note(func(c *spec.Counted) {
		if err != nil {
			c.Unseeing++
			return
		}
		c.Look.Observe(took)
	})
}

func (m *measures) planned(took time.Duration) {
	m.note(func(c *spec.Counted) { c.Plan.Observe(took) })
}

// did takes the outcome of an action, after which there have been so many commits
// of rules.
func (m *measures) did(o outcome, commits int) {
	m.note(func(c *spec.Counted) {
		took := o.took.to.Sub(o.took.from)
		if _, rules := o.action.(plan.Apply); rules && commits != m.commits {
			m.commits = commits
			c.Swap.Observe(took)
		}
		k := spec.ActionCount{Action: nameOf(o.action), Failed: o.err != nil}
		h, found := c.Actions[k]
		if !found {
			h = spec.NewHistogram(spec.WorkBounds)
		}
		h.Observe(took)
		c.Actions[k] = h
	})
}

// Counted is what the loop has counted so far. What is at work has a count of
// zero, so that one who asks again sees it grow.
func (l *Loop) Counted() spec.Counted {
	running := l.ops.running() // first: what ends meanwhile is counted
	l.measures.mu.Lock()
	c := l.measures.c.Clone()
	l.measures.mu.Unlock()
	for _, op := range running {
		c.Operations[spec.OperationCount{Project: op.Project, Kind: op.Kind, Outcome: spec.OperationDone}] += 0
	}
	c.Events = l.events.count()
	c.Written = l.cfg.Network.Written()
	return c
}

// count says how many events of each kind there were, those included that are no
// longer kept.
func (e *events) count() map[spec.EventKind]uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return maps.Clone(e.kinds)
}
