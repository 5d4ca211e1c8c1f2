package visit

import (
	"slices"
	"time"

	"dunnage/spec"
)

// Bounds of the history: a visit a second for more than an hour, or one every
// 5 s for more than five.
const (
	width = time.Second
	kept  = 4096 // entries
	// idleKept is how long it goes back when no operation is under way, nor has
	// just ended.
	idleKept = time.Minute
)

// history counts the visits of a target, by the time when they ended, and those
// that failed by the time when they began. Those before the first that succeeded
// are counted apart, and forgotten with it: it takes a while until a new port answers.
type history struct {
	entries []entry
	never   []time.Time // beginnings of those that failed, while none has succeeded
	first   time.Time   // end of the first visit that succeeded
	last    time.Time   // end of the last visit that succeeded
	open    time.Time   // beginning of the gap that none has ended; zero = there is none
	busy    bool        // an operation is under way
	since   time.Time   // of busy, or of its end
}

// entry counts the visits that ended within width of each other.
type entry struct {
	at           time.Time // of the first
	sent, failed int
	reasons      map[string]int // nil without a failure
	before       gap            // that the first that succeeded ended: it may have begun before the entry
	longest      time.Duration  // of the gaps that the others ended
	failing      gap            // that nothing had ended by the end of the last that failed
}

// gap is a time in which clients may have met nobody. It ends with a visit that
// succeeds and begins with the end of the last one that did; but where that was
// long ago because nobody was to ask meanwhile, which says nothing of clients,
// one quick interval before the first visit since then was due.
type gap struct{ from, to time.Time }

// since is how long the gap lasted from t on.
func (g gap) since(t time.Time) time.Duration { return max(0, g.to.Sub(maxTime(g.from, t))) }

// turn notes that an operation begins or has ended.
func (h *history) turn(now time.Time, busy bool) { h.busy, h.since = busy, now }

// add counts a visit that was due at due, ended now and succeeded.
func (h *history) add(due, now time.Time) {
	if h.first.IsZero() {
		h.first, h.last, h.never = now, now, nil
	}
	h.trim(now)
	// Those before and after an operation began are told apart.
	if n := len(h.entries); n == 0 || now.Sub(h.entries[n-1].at) >= width || h.entries[n-1].at.Before(h.since) {
		h.entries = append(h.entries, entry{at: now})
	}
	e := &h.entries[len(h.entries)-1]
	e.sent++
	g := gap{h.opened(due), now}
	if e.before.to.IsZero() {
		e.before = g
	} else {
		e.longest = max(e.longest, g.since(g.from))
	}
	h.last, h.open = now, time.Time{}
}

// opened is when the gap began that lasts when a visit ends that was due at due.
func (h *history) opened(due time.Time) time.Time {
	if !h.open.IsZero() {
		return h.open
	}
	return maxTime(h.last, due.Add(-often))
}

// miss counts a visit that was due at due, began at began and failed, at the time when it began:
// it takes a second until one has no answer, and an operation that begins
// meanwhile isn't to blame. One that began before the first that succeeded isn't
// counted, which is what miss reports.
func (h *history) miss(due, began, now time.Time, err error) (counted bool) {
	if h.first.IsZero() {
		h.never = append(h.never, began)
		h.never = h.never[max(0, len(h.never)-kept):]
		return false
	}
	if began.Before(h.first) {
		return false
	}
	h.trim(now)
	i := len(h.entries)
	for i > 0 && h.entries[i-1].at.After(began) {
		i--
	}
	if apart := i > 0 && !began.Before(h.since) && h.entries[i-1].at.Before(h.since); i == 0 || apart || began.Sub(h.entries[i-1].at) >= width {
		h.entries = slices.Insert(h.entries, i, entry{at: began})
		i++
	}
	e := &h.entries[i-1]
	e.sent++
	e.failed++
	if e.reasons == nil {
		e.reasons = map[string]int{}
	}
	e.reasons[err.Error()]++
	h.open = h.opened(due)
	if now.After(e.failing.to) {
		e.failing = gap{h.open, now}
	}
	return true
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// trim drops what nobody asks for any more.
func (h *history) trim(now time.Time) {
	drop := max(0, len(h.entries)-kept)
	if !h.busy && now.Sub(h.since) > idleKept {
		for drop < len(h.entries) && now.Sub(h.entries[drop].at) > idleKept {
			drop++
		}
	}
	if drop > 0 {
		h.entries = append(h.entries[:0], h.entries[drop:]...)
	}
}

// tally counts the visits since a time. What fell into the same entry as an
// earlier one isn't told apart, so those of the first second may be left out.
func (h *history) tally(t spec.VisitTarget, since time.Time) spec.VisitTally {
	out := spec.VisitTally{VisitTarget: t}
	for _, began := range h.never {
		if !began.Before(since) {
			out.Unreached++
		}
	}
	for _, e := range h.entries {
		if e.at.Before(since) {
			continue
		}
		out.Sent += e.sent
		out.Failed += e.failed
		for why, n := range e.reasons {
			if out.Reasons == nil {
				out.Reasons = map[string]int{}
			}
			out.Reasons[why] += n
		}
		out.LongestGap = max(out.LongestGap, spec.Duration(max(e.before.since(since), e.longest, e.failing.since(since))))
	}
	return out
}
