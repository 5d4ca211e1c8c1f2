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
	busy    bool        // an operation is under way
	since   time.Time   // of busy, or of its end
}

// entry counts the visits that ended within width of each other.
type entry struct {
	at           time.Time // of the first
	sent, failed int
	reasons      map[string]int // nil without a failure
	begin, end   time.Time      // the ends of the first and of the last that succeeded
	asked        time.Time      // when the first that succeeded began
	gap          time.Duration  // the longest between two that succeeded
	failing      time.Time      // the end of the last that failed
}

// turn notes that an operation begins or has ended.
func (h *history) turn(now time.Time, busy bool) { h.busy, h.since = busy, now }

// add counts a visit that began at began and ended now.
func (h *history) add(began, now time.Time, err error) {
	if err == nil && h.first.IsZero() {
		h.first, h.never = now, nil
	}
	h.trim(now)
	// Those before and after an operation began are told apart.
	if n := len(h.entries); n == 0 || now.Sub(h.entries[n-1].at) >= width || h.entries[n-1].at.Before(h.since) {
		h.entries = append(h.entries, entry{at: now})
	}
	h.entries[len(h.entries)-1].add(began, now, err)
}

// miss counts a visit that began at began and failed, at the time when it began:
// it takes a second until one has no answer, and an operation that begins
// meanwhile isn't to blame. One that began before the first that succeeded isn't
// counted, which is what miss reports.
func (h *history) miss(began, now time.Time, err error) (counted bool) {
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
	h.entries[i-1].add(began, now, err)
	return true
}

func (e *entry) add(began, now time.Time, err error) {
	e.sent++
	if err != nil {
		e.failed++
		if now.After(e.failing) {
			e.failing = now
		}
		if e.reasons == nil {
			e.reasons = map[string]int{}
		}
		e.reasons[err.Error()]++
		return
	}
	if e.begin.IsZero() {
		e.begin, e.asked = now, began
	} else {
		e.gap = max(e.gap, now.Sub(e.end))
	}
	e.end = now
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
	last := since  // the end of the last that succeeded
	asked := false // somebody was since then; before, visits are so far apart that a pause says nothing
	if h.first.After(last) {
		last = h.first
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
		if !asked && out.Failed == 0 && e.asked.After(last) {
			last = e.asked
		}
		asked = true
		if !e.begin.IsZero() {
			out.LongestGap = max(out.LongestGap, spec.Duration(max(e.gap, e.begin.Sub(last))))
			last = e.end
		}
		if e.failing.After(last) { // a gap that nothing has ended so far
			out.LongestGap = max(out.LongestGap, spec.Duration(e.failing.Sub(last)))
		}
	}
	return out
}
