package orchestrator

import (
	"context"
	"fmt"
	"sync"
	"time"

	"dunnage/spec"
)

// History keeps events over restarts of the agent, as long as there is room. No
// method waits for a disk but Read.
type History interface {
	// Append keeps e soon, or loses it.
	Append(e spec.Event)
	// Read sends the kept events with after < Seq < before, oldest first, until
	// send returns an error.
	Read(after, before uint64, send func(spec.Event) error) error
	// Last is the newest event of earlier agents, zero without any.
	Last() spec.Event
	// Oldest is when the first event that is kept happened; zero without any.
	Oldest() time.Time
	// Unkept says why events aren't kept now, empty = they are, and how many
	// aren't. Of a number without a reason it tells once.
	Unkept() (why string, lost int)
}

// forgetful is a History where there is none.
type forgetful struct{}

func (forgetful) Append(spec.Event)                                {}
func (forgetful) Read(_, _ uint64, _ func(spec.Event) error) error { return nil }
func (forgetful) Last() spec.Event                                 { return spec.Event{} }
func (forgetful) Oldest() time.Time                                { return time.Time{} }
func (forgetful) Unkept() (string, int)                            { return "", 0 }

const (
	// keptEvents is how many events are in memory: a deploy of fifty replicas
	// makes about five hundred.
	keptEvents = 8192
	// seqStep: each agent's events begin after a multiple of it. Progress of
	// pulls has numbers too and isn't kept, and a crash may lose the newest: no
	// number may be used twice, or one who goes on after it would miss events.
	seqStep = 100_000
)

// events is a bounded log with any number of readers.
type events struct {
	clock   Clock
	history History
	began   time.Time

	mu      sync.Mutex
	ring    []spec.Event // the newest keptEvents, oldest first
	trimmed bool         // it had more
	first   uint64       // Seq of the first event of this agent
	last    uint64
	more    chan struct{} // closed and replaced at each event

	kinds map[spec.EventKind]uint64 // how many of each there were, those included that are no longer kept
}

func newEvents(c Clock, h History) *events {
	if h == nil {
		h = forgetful{}
	}
	last := h.Last().Seq
	if last > 0 {
		last = (last/seqStep + 1) * seqStep
	}
	return &events{
		clock: c, history: h, began: c.Now(), first: last + 1, last: last,
		more: make(chan struct{}), kinds: map[spec.EventKind]uint64{},
	}
}

func (e *events) add(ev spec.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.last++
	e.kinds[ev.Kind]++
	if ev.Seq = e.last; ev.At.IsZero() {
		ev.At = e.clock.Now()
	}
	if len(e.ring) == keptEvents {
		e.ring = append(e.ring[:0], e.ring[keptEvents/8:]...)
		e.trimmed = true
	}
	e.ring = append(e.ring, ev)
	if ev.Pull == nil || ev.Pull.Layer == "" { // a layer's progress is of interest while it lasts
		e.history.Append(ev)
	}
	close(e.more)
	e.more = make(chan struct{})
}

// TellStart tells that this agent has started and, as far as the events that are
// kept say it, how the one before it ended.
func (l *Loop) TellStart() {
	text := fmt.Sprintf("agent %s started", l.cfg.Version)
	switch before := l.events.history.Last(); {
	case before.Kind == spec.EventAgentDown:
		text += "; the one before it was stopped in order"
	case before.Seq > 0:
		text += "; the one before it left no word of its end, as one that is killed or whose host goes down"
	}
	l.events.add(spec.Event{Kind: spec.EventAgentUp, Message: text})
}

// TellStop tells that the agent ends in order. No event may come after it.
func (l *Loop) TellStop() {
	l.events.add(spec.Event{Kind: spec.EventAgentDown, Message: fmt.Sprintf("agent %s stopped; containers and rules stay", l.cfg.Version)})
}

// after returns the events in memory with Seq > since, and a channel that is
// closed when there are more.
func (e *events) after(since uint64) ([]spec.Event, <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	i := len(e.ring)
	for i > 0 && e.ring[i-1].Seq > since {
		i--
	}
	return append([]spec.Event(nil), e.ring[i:]...), e.more
}

// inMemory says from which event on, and from which time on, all are in memory.
func (e *events) inMemory() (seq uint64, from time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.trimmed {
		return e.ring[0].Seq, e.ring[0].At
	}
	return e.first, e.began
}

// since is when the first event that is kept happened, at the latest when this
// agent began.
func (e *events) since() time.Time {
	if t := e.history.Oldest(); !t.IsZero() && t.Before(e.began) {
		return t
	}
	return e.began
}

// Events sends the events that r asks for, the kept ones first, until ctx ends
// (nil) or send fails.
func (l *Loop) Events(ctx context.Context, r spec.EventRequest, send func(spec.Event) error) error {
	wanted := func(ev spec.Event) error {
		if !r.Wants(ev) {
			return nil
		}
		return send(ev)
	}
	sent := r.After
	if seq, from := l.events.inMemory(); r.After+1 < seq && r.Since.Before(from) {
		err := l.events.history.Read(r.After, seq, func(ev spec.Event) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return wanted(ev)
		})
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
	}
	over := make(<-chan time.Time)
	if r.Follow && !r.Until.IsZero() {
		t := time.NewTimer(r.Until.Sub(l.cfg.Clock.Now()))
		defer t.Stop()
		over = t.C
	}
	for {
		evs, more := l.events.after(sent)
		for _, ev := range evs {
			if err := wanted(ev); err != nil {
				return err
			}
			sent = ev.Seq
		}
		if !r.Follow {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-over:
			return nil
		case <-more:
		}
	}
}
