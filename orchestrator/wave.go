package orchestrator

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// wavePatience is how long the loop waits for a wave. An action that takes longer
// (a large volume's first fill, a shim that hangs, a disk that doesn't answer)
// goes on by itself: until it ends, nothing else is begun on its replica, and
// everybody else's looks and actions go on.
const wavePatience = 2 * time.Second

// stuckAfter is when an action is told of that doesn't even end at its own
// deadline: something in the kernel holds it.
const stuckAfter = 2 * actionTimeout

// waves are the actions at work. Run's goroutine owns all but over.
type waves struct {
	number int64
	over   atomic.Int64 // the last wave that is no longer waited for
	done   chan outcome
	busy   map[string][]*underway // by replica; "" = what belongs to none
}

type underway struct {
	action plan.Action
	wave   int64
	since  time.Time
}

// outcome is what an action did, for the loop's goroutine to note.
type outcome struct {
	action plan.Action
	err    error
	began  *underway

	took    span
	written spec.Written // by an Apply
}

// execute does a wave and waits for it, as far as that takes no longer than
// wavePatience. Only this goroutine touches the loop's memory: actions report
// what they did. It returns how many actions it has begun.
func (l *Loop) execute(ctx context.Context, actions []plan.Action) (begun int) {
	w := &l.waves
	if w.done == nil {
		w.done, w.busy = make(chan outcome, parallel), map[string][]*underway{}
	}
	w.number++
	defer func() { w.over.Store(w.number) }()
	actions = limit(slices.DeleteFunc(slices.Clone(actions), func(a plan.Action) bool { return len(w.busy[a.Replica().ID]) > 0 }))
	patience := time.NewTimer(wavePatience)
	defer patience.Stop()
	for running := 0; begun < len(actions) || running > 0; {
		if begun < len(actions) && running < parallel {
			l.begin(ctx, actions[begun])
			begun, running = begun+1, running+1
			continue
		}
		select {
		case o := <-w.done:
			if o.began.wave == w.number {
				running--
			}
			l.finish(ctx, o)
		case <-patience.C:
			return begun
		case <-l.ctx.Done(): // Run waits for what is at work
			return begun
		}
	}
	return begun
}

func (l *Loop) begin(ctx context.Context, a plan.Action) {
	u := &underway{action: a, wave: l.waves.number, since: time.Now()}
	id := a.Replica().ID
	l.waves.busy[id] = append(l.waves.busy[id], u)
	l.jobs.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, actionTimeout)
		defer cancel()
		from := l.cfg.Clock.Now()
		o := outcome{action: a, err: l.act(ctx, a), began: u}
		o.took = span{from, l.cfg.Clock.Now()}
		select {
		case l.waves.done <- o:
		case <-l.ctx.Done():
			return
		}
		if l.waves.over.Load() >= u.wave {
			l.Look()
		}
	})
}

func (l *Loop) finish(ctx context.Context, o outcome) {
	busy := l.waves.busy
	id := o.action.Replica().ID
	busy[id] = slices.DeleteFunc(busy[id], func(u *underway) bool { return u == o.began })
	if len(busy[id]) == 0 {
		delete(busy, id)
	}
	if ctx.Err() == nil { // a stop of the agent isn't the replica's failure
		l.measures.did(o, l.cfg.Network.Written().Commits)
		l.note(o)
	}
}

// takeLate notes what has ended since the last wave.
func (l *Loop) takeLate(ctx context.Context) {
	for {
		select {
		case o := <-l.waves.done:
			l.finish(ctx, o)
		default:
			return
		}
	}
}

// stuck tells of the actions that should long have ended.
func (l *Loop) stuck() []string {
	var out []string
	for _, id := range slices.Sorted(maps.Keys(l.waves.busy)) {
		for _, u := range l.waves.busy[id] {
			if since := time.Since(u.since); since > stuckAfter {
				out = append(out, fmt.Sprintf("%s has been under way for %s, and doesn't end at its deadline: "+
					"it hangs in the kernel, on a disk or a mount perhaps, and other replicas go on; `dmesg` may name what doesn't answer", strings.TrimSpace(nameOf(u.action)+" "+id), since.Round(time.Second)))
			}
		}
	}
	return out
}

// nameOf is an action's kind: "create".
func nameOf(a plan.Action) string {
	return strings.ToLower(strings.TrimPrefix(fmt.Sprintf("%T", a), "plan."))
}
