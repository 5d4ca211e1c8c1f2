package visit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"dunnage/spec"
)

// Dialer opens connections. An error that wraps spec.ErrUnavailable says that
// it couldn't try, which tells nothing of the address.
type Dialer interface {
	Dial(ctx context.Context, from spec.Vantage, to netip.AddrPort) (net.Conn, error)
}

// Times of the schedule.
const (
	// answerWithin is how long a visit may take: a lost SYN is repeated after 1 s,
	// and a host that is busy with a rollout may be late once.
	answerWithin = 2 * time.Second
	// often is the interval while connections move, which is for stirred after
	// an operation has begun or the rules were changed for it; an operation may
	// take days.
	often   = 50 * time.Millisecond
	stirred = time.Minute
	// soon is the interval while something is wrong, or an operation waits.
	soon = time.Second
	// seldom is the interval when all is well.
	seldom = 5 * time.Second
)

// flights is how many visits may be under way: targets that don't answer hold
// one for a second each.
const flights = 32

// Visitor visits the targets that it was given last. Its methods are safe for
// concurrent use.
type Visitor struct {
	ctx     context.Context
	dialer  Dialer
	changed func() // called, without locks, when an answer of Reach has become another one

	mu      sync.Mutex
	targets map[string]*target
	keys    []string // of targets, sorted
	flying  int
	starved bool // some target was due and had no place
	counts  counts

	wake chan struct{}
	wg   sync.WaitGroup
}

// target is an address and all that is known of it.
type target struct {
	record
	history history
	due     time.Time
	waiting []time.Time // when the visits that are under way were due
	stirred time.Time   // when often began, or the rules were changed last
	awaited bool        // somebody waits for a visit that begins after stirred
	absent  time.Time   // when it was last known to be absent
}

// New returns a visitor whose visits end with ctx; Wait waits for them.
func New(ctx context.Context, d Dialer, changed func()) *Visitor {
	v := &Visitor{ctx: ctx, dialer: d, changed: changed, targets: map[string]*target{}, wake: make(chan struct{}, 1)}
	v.wg.Go(v.run)
	return v
}

// Wait returns when every visit has ended, after the visitor's context has.
func (v *Visitor) Wait() { v.wg.Wait() }

// Watch replaces the set of targets.
func (v *Visitor) Watch(targets []spec.VisitTarget) {
	v.mu.Lock()
	defer v.mu.Unlock()
	now := time.Now()
	seen := make(map[string]bool, len(targets))
	woken, others := false, false
	for _, to := range targets {
		key := to.Key()
		seen[key] = true
		t := v.targets[key]
		if t == nil {
			t = &target{}
			v.targets[key] = t
			others = true
		}
		woken = t.become(to, now) || woken
	}
	for key := range v.targets {
		if !seen[key] {
			delete(v.targets, key)
			others = true
		}
	}
	if others {
		v.keys = slices.Sorted(maps.Keys(v.targets))
		v.counts.forget(targets, now)
	}
	if woken || others {
		v.look()
	}
}

// become takes what the loop says of the target now, and reports whether it is
// to be asked at once.
func (t *target) become(to spec.VisitTarget, now time.Time) (woken bool) {
	began := to.Often && !t.Often
	woken = t.due.IsZero() || began || t.Absent && !to.Absent
	if t.Often && !to.Often || began {
		t.history.turn(now, began)
	}
	if began {
		t.stirred = now
	}
	if to.Absent || t.Absent {
		t.absent = now
	}
	t.record.become(to)
	if woken {
		t.due = now
	}
	return woken
}

// Again visits at once what an operation is about and what isn't reached.
func (v *Visitor) Again() {
	v.mu.Lock()
	defer v.mu.Unlock()
	now := time.Now()
	for _, t := range v.targets {
		if t.Often || t.State != spec.ReachReachable || t.Failed > 0 {
			t.due, t.stirred, t.awaited = now, now, true
		}
	}
	v.begin(now)
	v.look() // for those that are due later
}

// look wakes the schedule.
func (v *Visitor) look() {
	select {
	case v.wake <- struct{}{}:
	default: // it is awake already
	}
}

func (v *Visitor) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-v.ctx.Done():
			return
		case <-timer.C:
		case <-v.wake:
		}
		v.mu.Lock()
		timer.Reset(v.begin(time.Now()))
		v.mu.Unlock()
	}
}

// begin begins the visits that are due, those first that are due longest, and
// returns how long there is nothing to begin. Called with mu held.
func (v *Visitor) begin(now time.Time) time.Duration {
	wait := seldom
	var due []*target
	for _, key := range v.keys {
		t := v.targets[key]
		switch {
		case t.idle(): // another Watch wakes the schedule
		case t.due.After(now):
			wait = min(wait, t.due.Sub(now))
		case len(t.waiting) > 0 && !(t.awaited && len(t.waiting) == 1): // the end of the visit does
		default:
			due = append(due, t)
		}
	}
	slices.SortStableFunc(due, func(a, b *target) int { return a.due.Compare(b.due) })
	for _, t := range due {
		if v.starved = v.flying >= flights; v.starved {
			break // the end of one wakes the schedule
		}
		v.start(t, now)
		wait = min(wait, t.due.Sub(now))
	}
	return wait
}

// start begins a visit. Called with mu held.
func (v *Visitor) start(t *target, now time.Time) {
	v.flying++
	t.awaited = false
	due := t.due
	t.waiting = append(t.waiting, due)
	t.due = t.next(now)
	to := t.VisitTarget
	absent := t.Absent
	v.wg.Go(func() { v.visit(t, to, due, absent) })
}

// next is when to visit again after a visit that begins now. Longer waits end
// together, because to wake up costs the agent about as much as a visit does.
func (t *target) next(now time.Time) time.Time {
	switch {
	case t.Often && now.Sub(t.stirred) < stirred:
		return now.Add(often)
	case t.Often, t.Failed > 0, t.State != spec.ReachReachable && !t.Absent:
		return now.Add(soon)
	default:
		return now.Add(seldom).Round(time.Second)
	}
}

// visit makes one visit, which was due at due.
func (v *Visitor) visit(t *target, to spec.VisitTarget, due time.Time, absent bool) {
	ctx, cancel := context.WithCancelCause(v.ctx)
	defer cancel(nil)
	began := time.Now()
	var giveUp func()
	giveUp = func() {
		if more := v.patience(t, began); more > 0 {
			time.AfterFunc(more, giveUp)
			return
		}
		cancel(errNoAnswer)
	}
	limit := time.AfterFunc(answerWithin, giveUp)
	err := ask(ctx, v.dialer, to)
	limit.Stop()
	if err != nil && errors.Is(context.Cause(ctx), errNoAnswer) {
		err = fmt.Errorf("%w within %s", errNoAnswer, time.Since(began).Round(100*time.Millisecond))
	}
	if v.ctx.Err() == nil && v.note(t, due, began, absent, err) {
		v.changed()
	}
}

// patience is how much longer a visit may wait that has had its second: new
// connections are held while no replica is ready.
func (v *Visitor) patience(t *target, began time.Time) time.Duration {
	v.mu.Lock()
	defer v.mu.Unlock()
	if t.absent.Before(began) {
		return 0
	}
	return time.Until(began.Add(answerWithin + t.Patience.Std()))
}

// note takes a result, and reports whether Reach tells something else now.
func (v *Visitor) note(t *target, due, began time.Time, absent bool, err error) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	due = t.answered(due)
	v.flying--
	now := time.Now()
	before, fresh := t.Reach, t.Asked.Before(t.stirred)
	switch {
	case err == nil:
		t.history.add(due, now)
		v.counts.of(t.VisitTarget).Answered.Observe(now.Sub(began))
	case !errors.Is(err, spec.ErrUnavailable) && t.history.miss(due, began, now, err):
		v.counts.of(t.VisitTarget).Failed++
	}
	t.result(now, began, absent || t.Absent, err)
	if t.Failed > 0 || t.Unasked != "" {
		t.due = minTime(t.due, began.Add(soon))
	}
	if v.starved || !t.due.After(now) || t.Failed > 0 {
		v.look()
	}
	return before.State != t.State || before.Unasked != t.Unasked || fresh && !t.Asked.Before(t.stirred)
}

// answered takes a visit, which was due at due, from those under way, and returns
// since when clients may have been waiting as it did: longer than it, if an
// earlier one still waits for its connection, which is tried again only after a
// second.
func (t *target) answered(due time.Time) time.Time {
	if i := slices.IndexFunc(t.waiting, due.Equal); i >= 0 {
		t.waiting = slices.Delete(t.waiting, i, i+1)
	}
	for _, other := range t.waiting {
		due = minTime(due, other)
	}
	return due
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// Reach says what was found at each target, sorted by key.
func (v *Visitor) Reach() []spec.Reach {
	v.mu.Lock()
	defer v.mu.Unlock()
	all := make([]spec.Reach, len(v.keys))
	for i, key := range v.keys {
		all[i] = v.targets[key].Reach
	}
	return all
}

// Tally counts the visits of the project's targets since a time.
func (v *Visitor) Tally(project string, since time.Time) []spec.VisitTally {
	v.mu.Lock()
	defer v.mu.Unlock()
	var all []spec.VisitTally
	for _, key := range v.keys {
		if t := v.targets[key]; t.Project == project {
			tally := t.history.tally(t.VisitTarget, since)
			tally.State = t.State
			if len(t.waiting) > 0 && !t.history.first.IsZero() { // a gap that goes on
				now := time.Now()
				g := gap{t.history.opened(slices.MinFunc(t.waiting, time.Time.Compare)), now}
				tally.LongestGap = max(tally.LongestGap, spec.Duration(g.since(since)))
			}
			all = append(all, tally)
		}
	}
	slices.SortStableFunc(all, func(a, b spec.VisitTally) int { return cmp.Compare(a.Service, b.Service) })
	return all
}
