package orchestrator

import (
	"context"
	"sync"

	"dunnage/spec"
)

// keptEvents is how many events a late reader can still get: a deploy of fifty
// replicas makes about five hundred.
const keptEvents = 8192

// events is a bounded log with any number of readers.
type events struct {
	clock Clock

	mu   sync.Mutex
	ring []spec.Event // the newest keptEvents, oldest first
	last uint64
	more chan struct{} // closed and replaced at each event
}

func newEvents(c Clock) *events {
	return &events{clock: c, more: make(chan struct{})}
}

func (e *events) add(ev spec.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.last++
	if ev.Seq = e.last; ev.At.IsZero() {
		ev.At = e.clock.Now()
	}
	if len(e.ring) == keptEvents {
		e.ring = append(e.ring[:0], e.ring[keptEvents/8:]...)
	}
	e.ring = append(e.ring, ev)
	close(e.more)
	e.more = make(chan struct{})
}

// after returns the kept events with Seq > since, and a channel that is closed
// when there are more.
func (e *events) after(since uint64) ([]spec.Event, <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	i := len(e.ring)
	for i > 0 && e.ring[i-1].Seq > since {
		i--
	}
	return append([]spec.Event(nil), e.ring[i:]...), e.more
}

// Events sends the kept events with Seq > since and, with follow, then new ones,
// until ctx ends (nil) or send fails.
func (l *Loop) Events(ctx context.Context, since uint64, follow bool, send func(spec.Event) error) error {
	for {
		evs, more := l.events.after(since)
		for _, ev := range evs {
			if err := send(ev); err != nil {
				return err
			}
			since = ev.Seq
		}
		if !follow {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-more:
		}
	}
}
