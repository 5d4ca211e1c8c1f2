package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"dunnage/spec"
)

// Supervisor is what can be known of containerd, and done to it, from outside.
type Supervisor interface {
	// Canary does a real, cheap operation that exercises containerd: one that
	// only says its version may be wedged all the same. It has no deadline but
	// ctx's.
	Canary(ctx context.Context) error
	// Present reports whether a process is there to answer. One that somebody has
	// stopped isn't wedged.
	Present(ctx context.Context) bool
	// Restart ends it and has it started again; containers live on. Nil error
	// means that it was done, not that it helped. Where nobody has said how, it
	// wraps spec.ErrRefused.
	Restart(ctx context.Context) error
}

// Times of the guard.
const (
	defaultPatience = 30 * time.Second
	// canaryEvery is the time between two canaries while all is well: one write
	// to containerd's database.
	canaryEvery = 10 * time.Second
	// canaryAgain is that after a canary that failed.
	canaryAgain = time.Second
	// canarySlow is what makes containerd slow, which is told and no more.
	canarySlow = 5 * time.Second
	// restartTime is what the restart itself gets. `systemctl restart` waits 90 s
	// for one that doesn't want to stop.
	restartTime = 2 * time.Minute
	// firstRestartPause is the time between a restart and the next one, if the
	// first didn't help; it doubles up to longestRestartPause.
	firstRestartPause   = time.Minute
	longestRestartPause = time.Hour
)

// vigil decides, by what the canary did, whether containerd is wedged and
// whether it is to be restarted. It has no clock of its own.
type vigil struct {
	patience time.Duration // one that is silent for longer is wedged

	silent  time.Time // since when no canary was answered; zero = the last one was
	from    time.Time // patience is counted from here: silent, or the last restart
	gone    time.Time // since when there is nobody to answer; zero = there is somebody
	healthy time.Time // since when it has answered
	looked  time.Time // when it answered a look last
	latency time.Duration
	err     string // of the last canary: why it wasn't answered, or with which error it was

	ending  bool      // it is being restarted
	tries   int       // restarts since it last answered for longestRestartPause
	spell   int       // of them since it was silent
	next    time.Time // no restart before
	refused bool      // nobody has said how to restart it
	failed  string    // why the last restart wasn't done
}

// canary is the outcome of one.
type canary struct {
	began, ended time.Time
	answered     bool
	present      bool // there is a process to answer
	err          error
}

func (v *vigil) take(c canary) {
	v.err = ""
	if c.err != nil {
		v.err = plain(c.err)
	}
	if c.answered {
		if !v.silent.IsZero() || v.healthy.IsZero() {
			v.healthy = c.ended
		}
		if c.ended.Sub(v.healthy) > longestRestartPause {
			v.tries = 0
		}
		v.silent, v.from, v.gone, v.failed, v.refused, v.spell = time.Time{}, time.Time{}, time.Time{}, "", false, 0
		v.latency = c.ended.Sub(c.began)
		return
	}
	if v.silent.IsZero() {
		v.silent, v.from = c.began, c.began
	}
	switch {
	case c.present:
		v.gone = time.Time{}
		return
	case v.gone.IsZero():
		v.gone = c.began
	}
	v.from = c.ended // one that comes back gets all the time
}

// wedged reports whether it is there, and hasn't answered for longer than
// patience.
func (v *vigil) wedged(now time.Time) bool {
	return !v.silent.IsZero() && v.gone.IsZero() && now.Sub(v.from) >= v.patience
}

func (v *vigil) due(now time.Time) bool { return v.wedged(now) && !v.refused && !now.Before(v.next) }

// restarting reports whether its silence is that of a restart: it is under way, or
// the new one hasn't had its time yet.
func (v *vigil) restarting(now time.Time) bool {
	return v.ending || !v.silent.IsZero() && v.spell > 0 && v.failed == "" && !v.wedged(now)
}

// restarted takes the outcome of a restart.
func (v *vigil) restarted(now time.Time, err error) {
	v.ending = false
	if v.refused = errors.Is(err, spec.ErrRefused); v.refused {
		return
	}
	if v.failed = ""; err != nil {
		v.failed = plain(err)
	}
	v.next = now.Add(min(firstRestartPause<<min(v.tries, 10), longestRestartPause))
	v.tries, v.spell = v.tries+1, v.spell+1
	v.from = now
}

const serveOn = "replicas serve on, and nothing can be started or stopped"

// problem says what is wrong; empty = nothing.
func (v *vigil) problem(now time.Time) string {
	since := func(t time.Time) time.Duration { return now.Sub(t).Round(time.Second) }
	switch {
	case v.silent.IsZero() && v.err != "":
		return "containerd answers with an error: " + v.err + "; its log says more, and `dunnage df` whether its disk is full"
	case v.silent.IsZero() && v.latency > canarySlow:
		return fmt.Sprintf("containerd is slow: a write to its database took %s; `cat /proc/pressure/io` shows whether its disk is busy", v.latency.Round(100*time.Millisecond))
	case v.silent.IsZero():
		return ""
	case !v.gone.IsZero():
		if now.Sub(v.gone) < canarySlow {
			return ""
		}
		return fmt.Sprintf("containerd has been gone for %s: %s; start it (`systemctl start containerd`): one of the agent's own the agent starts, and its log says why that fails", since(v.gone), serveOn)
	case !v.wedged(now) && v.spell == 0:
		return ""
	case !v.wedged(now) && v.looked.After(v.from): // the next canary says it too
		return ""
	case !v.wedged(now) && v.failed == "":
		return fmt.Sprintf("containerd was restarted %s and has yet to answer: %s; it gets %s for that", times(v.spell), serveOn, v.patience)
	}
	text := fmt.Sprintf("containerd is wedged: no answer for %s (%s): %s", since(v.silent), v.err, serveOn)
	switch {
	case v.refused:
		return text + "; restart it, or let the agent do that: `dunnage agent --containerd-restart \"systemctl restart containerd\"`"
	case v.failed != "":
		text += ", and to restart it failed: " + v.failed
	case v.spell > 0:
		text += ", though it was restarted " + times(v.spell)
	}
	if now.Before(v.next) {
		return text + fmt.Sprintf("; the next restart is in %s at the earliest", v.next.Sub(now).Round(time.Second))
	}
	return text + "; the agent restarts it now"
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// guard watches over containerd apart from the loop, which waits for it.
type guard struct {
	doubt chan struct{}

	mu sync.Mutex
	vigil
	told string // the last problem that is an event, until it answers
}

func newGuard(patience time.Duration) *guard {
	return &guard{doubt: make(chan struct{}, 1), vigil: vigil{patience: patience}}
}

// Guard tells a wedged containerd from a slow one, and has the wedged one
// restarted, until the loop's context ends.
func (l *Loop) Guard(s Supervisor) {
	for ctx := l.ctx; ctx.Err() == nil; {
		c := l.sing(ctx, s)
		if ctx.Err() != nil {
			return
		}
		restart, over := l.guard.note(c)
		if over != "" {
			l.cfg.Log.Info("no longer", "problem", over)
			l.events.add(spec.Event{Kind: spec.EventRepaired, Message: "no longer: " + over})
		}
		if restart && l.restartEngine(ctx, s) {
			continue // whether that has helped is known at once
		}
		pause := canaryEvery
		if !c.answered {
			pause = canaryAgain
		}
		select {
		case <-ctx.Done():
		case <-l.guard.doubt:
		case <-time.After(pause):
		}
	}
}

// sing sends a canary. An error that containerd answers with, of a full disk say,
// is an answer: a restart wouldn't help.
func (l *Loop) sing(ctx context.Context, s Supervisor) canary {
	c := canary{began: l.cfg.Clock.Now()}
	limited, cancel := context.WithTimeoutCause(ctx, l.guard.patience, fmt.Errorf("no answer within %s", l.guard.patience))
	defer cancel()
	c.err = s.Canary(limited)
	c.answered = c.err == nil || limited.Err() == nil && !errors.Is(c.err, spec.ErrUnavailable)
	c.present = c.answered || s.Present(ctx)
	c.ended = l.cfg.Clock.Now()
	return c
}

// note takes a canary, and says whether containerd is to be restarted, and which
// problem that was told of is over.
func (g *guard) note(c canary) (restart bool, over string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.take(c)
	if c.answered {
		over, g.told = g.told, ""
	}
	return g.due(c.ended), over
}

// tellGuard makes an event of a problem of the guard's, which note says the end of.
func (l *Loop) tellGuard(what, rest string) {
	l.guard.mu.Lock()
	l.guard.told = what
	l.guard.mu.Unlock()
	l.events.add(spec.Event{Kind: spec.EventProblem, Message: what + rest})
}

// suspect asks for a canary now.
func (g *guard) suspect() {
	select {
	case g.doubt <- struct{}{}:
	default:
	}
}

// answered takes that containerd has answered a look that began at a time.
func (g *guard) answered(began time.Time) {
	g.mu.Lock()
	g.looked = began
	silent := !g.silent.IsZero()
	g.mu.Unlock()
	if silent {
		g.suspect()
	}
}

// restarts reports whether the agent is restarting containerd.
func (g *guard) restarts(now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.restarting(now)
}

// says is the guard's problem with containerd.
func (g *guard) says(now time.Time) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.problem(now)
}

// Latency is how long the last canary took, and whether it was answered.
func (l *Loop) Latency() (time.Duration, bool) {
	l.guard.mu.Lock()
	defer l.guard.mu.Unlock()
	return l.guard.latency, l.guard.silent.IsZero() && !l.guard.healthy.IsZero()
}

// restartEngine reports whether it was restarted.
func (l *Loop) restartEngine(ctx context.Context, s Supervisor) bool {
	was, _ := spec.SplitProblem(l.guard.says(l.cfg.Clock.Now()))
	l.guard.mu.Lock()
	l.guard.ending = true
	l.guard.mu.Unlock()
	limited, cancel := context.WithTimeout(ctx, restartTime)
	err := s.Restart(limited)
	cancel()
	l.guard.mu.Lock()
	l.guard.restarted(l.cfg.Clock.Now(), err)
	l.guard.mu.Unlock()
	switch {
	case ctx.Err() != nil:
	case errors.Is(err, spec.ErrRefused):
		what, next := spec.SplitProblem(l.guard.says(l.cfg.Clock.Now()))
		l.cfg.Log.Error("containerd", "problem", what)
		l.tellGuard(what, "; "+next)
	case err != nil:
		l.cfg.Log.Error("restart containerd", "because", was, "error", err)
		l.tellGuard(was, "; to restart it failed: "+plain(err))
	default:
		l.measures.note(func(c *spec.Counted) { c.EngineRestarts++ })
		l.cfg.Log.Warn("containerd restarted", "because", was)
		l.events.add(spec.Event{Kind: spec.EventRepaired, Message: "containerd restarted: " + was})
	}
	l.Look()
	return err == nil
}

// EngineDied takes that containerd has died and is started again, in the words
// of who starts it.
func (l *Loop) EngineDied(text string) {
	l.measures.note(func(c *spec.Counted) { c.EngineRestarts++ })
	l.events.add(spec.Event{Kind: spec.EventProblem, Message: text + "; meanwhile " + serveOn})
	l.Look()
}
