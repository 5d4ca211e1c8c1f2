package health

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"dunnage/internal/fault"
	"dunnage/spec"
)

// Prober does one check; nil is success. It returns when ctx ends.
type Prober interface {
	Probe(ctx context.Context, replica string, addr netip.Addr, p spec.Probe) error
}

// Monitor probes the targets it was given last. Its methods are safe for
// concurrent use.
type Monitor struct {
	ctx     context.Context
	prober  Prober
	changed func() // called, without locks, whenever an answer of Health may differ

	mu      sync.Mutex
	watched map[string]*watch // by replica
	counts  counts
	wg      sync.WaitGroup
}

// watch is one process of one replica.
type watch struct {
	target    spec.ProbeTarget
	records   []record     // by probe
	checks    []spec.Check // the last keptChecks
	accepting bool         // its accept probes have begun
	ctx       context.Context
	cancel    context.CancelFunc
}

// keptChecks is how many results of a process are kept to be shown.
const keptChecks = 5

// NewMonitor returns a monitor whose probes end with ctx; Wait waits for them.
func NewMonitor(ctx context.Context, p Prober, changed func()) *Monitor {
	return &Monitor{ctx: ctx, prober: p, changed: changed, watched: map[string]*watch{}}
}

// Watch replaces the set of targets. A target that was there with the same
// start of process goes on; a new process begins anew.
func (m *Monitor) Watch(targets []spec.ProbeTarget) {
	m.mu.Lock()
	defer m.mu.Unlock()
	seen := make(map[string]bool, len(targets))
	for _, t := range targets {
		seen[t.Replica] = true
		if w := m.watched[t.Replica]; w != nil {
			if w.target.StartedAt.Equal(t.StartedAt) {
				continue
			}
			w.cancel()
		}
		m.watched[t.Replica] = m.begin(t)
	}
	for id, w := range m.watched {
		if !seen[id] {
			w.cancel()
			delete(m.watched, id)
		}
	}
	m.counts.forget(targets, time.Now())
}

// Again lets those of the replicas begin anew that have failed before they were
// ever healthy: their probes have as long as after a start, and the accept probe
// is run once more. Somebody may have put right what they failed of.
func (m *Monitor) Again(replicas []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range replicas {
		w := m.watched[id]
		if w == nil || !slices.ContainsFunc(w.records, record.gaveUp) {
			continue
		}
		w.cancel()
		t, checks := w.target, w.checks
		t.Adopted = false // what it failed of has been looked at
		w = m.begin(t)
		w.checks = checks
		for i := range w.records {
			w.records[i].since = time.Now()
		}
		m.watched[id] = w
	}
}

// assureWithin is how long a replica has to answer Assure: a healthy one takes
// milliseconds, and somebody waits. Who is known to take longer has that long.
const assureWithin = 500 * time.Millisecond

// Assure probes those of the replicas that count as healthy once, now: the last
// probe may be long ago. It returns those that don't answer soon, with why, and
// takes them for unhealthy.
func (m *Monitor) Assure(ctx context.Context, replicas []string) map[string]string {
	failed := map[string]string{}
	var wg sync.WaitGroup
	m.mu.Lock()
	for _, id := range replicas {
		w := m.watched[id]
		if w == nil {
			continue
		}
		for i, r := range w.records {
			if r.health != spec.HealthHealthy || r.probe.Kind == spec.ProbeAccept || r.probe.Kind == spec.ProbeRunning {
				continue
			}
			p := r.probe
			p.Timeout = min(p.Timeout, spec.Duration(w.usual(p.Kind)))
			wg.Go(func() {
				began := time.Now()
				err := m.check(ctx, w.target, p)
				if ctx.Err() != nil || w.ctx.Err() != nil || errors.Is(err, spec.ErrUnavailable) {
					return
				}
				m.mu.Lock()
				defer m.mu.Unlock()
				w.keep(p.Kind, began, err)
				m.counts.add(w.target, p.Kind, err, true)
				if err != nil {
					w.records[i].fail(err)
					failed[id] = err.Error()
				}
			})
		}
	}
	m.mu.Unlock()
	wg.Wait()
	if len(failed) > 0 {
		m.changed()
	}
	return failed
}

// usual is how long the target may take to answer Assure. Called with mu held.
func (w *watch) usual(kind spec.ProbeKind) time.Duration {
	longest := assureWithin
	for _, c := range w.checks {
		if c.Probe == kind && c.OK {
			longest = max(longest, 3*c.Took.Std())
		}
	}
	return longest
}

// begin starts a goroutine for each probe of the target. Called with mu held.
func (m *Monitor) begin(t spec.ProbeTarget) *watch {
	ctx, cancel := context.WithCancel(m.ctx)
	w := &watch{target: t, ctx: ctx, cancel: cancel, records: make([]record, len(t.Probes))}
	for i, p := range t.Probes {
		w.records[i] = newRecord(p, t, time.Now())
		switch {
		case p.Kind != spec.ProbeAccept:
			m.wg.Go(func() { m.run(ctx, w, i) })
		case t.Accepted:
			w.records[i].health = spec.HealthHealthy
		}
	}
	m.accept(w)
	return w
}

// accept begins the accept probes once all others have passed. Called with mu
// held.
func (m *Monitor) accept(w *watch) {
	if w.accepting || w.target.Accepted {
		return
	}
	for i, p := range w.target.Probes {
		if p.Kind != spec.ProbeAccept && w.records[i].health != spec.HealthHealthy {
			return
		}
	}
	w.accepting = true
	for i, p := range w.target.Probes {
		if p.Kind == spec.ProbeAccept {
			m.wg.Go(func() { m.runOnce(w.ctx, w, i) })
		}
	}
}

// acceptRetry is how soon an accept probe is tried again that wasn't run at all,
// because containerd didn't answer.
const acceptRetry = time.Second

// runOnce runs an accept probe. What it says is final, until Again.
func (m *Monitor) runOnce(ctx context.Context, w *watch, i int) {
	for {
		began := time.Now()
		err := m.check(ctx, w.target, w.target.Probes[i])
		if ctx.Err() != nil {
			return
		}
		if !errors.Is(err, spec.ErrUnavailable) {
			m.judge(w, i, began, err)
			m.changed()
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(acceptRetry):
		}
	}
}

func (m *Monitor) judge(w *watch, i int, began time.Time, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	w.keep(w.target.Probes[i].Kind, began, err)
	m.counts.add(w.target, spec.ProbeAccept, err, true) // it runs once: its failure is one
	w.records[i].health, w.records[i].passed = spec.HealthHealthy, err == nil
	if err != nil {
		w.records[i].health, w.records[i].detail, w.records[i].output = spec.HealthUnhealthy, err.Error(), outputOf(err)
	}
}

func (m *Monitor) run(ctx context.Context, w *watch, i int) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		began := time.Now()
		err := m.check(ctx, w.target, w.target.Probes[i])
		if ctx.Err() != nil {
			return
		}
		wait, changed := m.note(w, i, began, err)
		if changed {
			m.changed()
		}
		timer.Reset(inStep(time.Now(), wait))
	}
}

// The grid that probes fall on: those of many replicas come in the same moments,
// because to wake up costs the agent about as much as a probe does.
const (
	gridLeast = time.Second            // shorter waits are kept as they are
	grid      = 250 * time.Millisecond // at most a quarter of a wait
)

// inStep moves the end of a wait to the next moment of the grid.
func inStep(now time.Time, wait time.Duration) time.Duration {
	if wait < gridLeast {
		return wait
	}
	end := now.Add(wait)
	return end.Round(grid).Sub(now)
}

func (m *Monitor) check(ctx context.Context, t spec.ProbeTarget, p spec.Probe) error {
	if p.Kind == spec.ProbeRunning {
		if left := time.Until(t.StartedAt.Add(runningFor)); left > 0 {
			return fmt.Errorf("has run for less than %s", runningFor)
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, p.Timeout.Std())
	defer cancel()
	err := m.prober.Probe(ctx, t.Replica, t.Addr, p)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return &commandError{fmt.Errorf("%s: no answer within %s", title(p), p.Timeout), outputOf(err)}
	}
	return err
}

// title is how the errors of a probe begin.
func title(p spec.Probe) string {
	switch {
	case p.FromImage:
		return "the image's HEALTHCHECK"
	case p.Kind == spec.ProbeAccept:
		return "accept"
	case p.Kind == spec.ProbeExec: // nothing else is checked so
		return "healthcheck"
	}
	return string(p.Kind) + " probe"
}

func (m *Monitor) note(w *watch, i int, began time.Time, err error) (time.Duration, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := &w.records[i]
	before := r.health
	if kind := r.probe.Kind; kind != spec.ProbeRunning { // which asks nothing
		w.keep(kind, began, err)
		m.counts.add(w.target, kind, err, r.passed)
	}
	wait := r.result(time.Now(), err)
	m.accept(w)
	return wait, r.health != before
}

// keep adds a result to those that are shown.
func (w *watch) keep(kind spec.ProbeKind, began time.Time, err error) {
	c := spec.Check{At: began, Took: spec.Duration(time.Since(began)), Probe: kind, OK: err == nil}
	if err != nil {
		c.Detail = err.Error()
	}
	w.checks = append(w.checks, c)
	w.checks = w.checks[max(0, len(w.checks)-keptChecks):]
}

// Checks returns the last results of the replica's process that started at
// started, oldest first.
func (m *Monitor) Checks(replica string, started time.Time) []spec.Check {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := m.watched[replica]
	if w == nil || !w.target.StartedAt.Equal(started) {
		return nil
	}
	return slices.Clone(w.checks)
}

// Health returns what is known of the replica's process that started at
// started, and the last failure: unhealthy if any probe says so, healthy if all
// do.
func (m *Monitor) Health(replica string, started time.Time) (spec.Health, string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if fault.Sabotaged("all are healthy") {
		return spec.HealthHealthy, ""
	}
	w := m.watched[replica]
	if w == nil || !w.target.StartedAt.Equal(started) {
		return spec.HealthStarting, ""
	}
	worst, detail := spec.HealthHealthy, ""
	for _, r := range w.records {
		if rank[r.health] > rank[worst] {
			worst = r.health
		}
		if detail == "" {
			detail = r.detail
		}
	}
	return worst, detail
}

// Output is what the command printed last by which the replica's process fails,
// oldest line first: at most ten lines and 4 KiB; nil where no command fails.
func (m *Monitor) Output(replica string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := m.watched[replica]
	if w == nil {
		return nil
	}
	i := slices.IndexFunc(w.records, func(r record) bool { return r.detail != "" }) // as Health takes it
	if i < 0 {
		return nil
	}
	return w.records[i].output
}

// rank orders health from good to bad. Unknown outranks starting only because
// an adopted replica has both until each of its probes has answered.
var rank = map[spec.Health]int{
	spec.HealthHealthy: 0, spec.HealthStarting: 1, spec.HealthUnknown: 2, spec.HealthUnhealthy: 3,
}

// Wait returns when every probe has ended, after the monitor's context has.
func (m *Monitor) Wait() { m.wg.Wait() }
