package visit

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"dunnage/spec"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// TestRecord tells a story of visits a line: what is said of the target, and
// what a visit of the next second finds.
func TestRecord(t *testing.T) {
	served, absent := spec.VisitTarget{}, spec.VisitTarget{Absent: true}
	bad, mute := errors.New("no answer within 1s"), fmt.Errorf("no namespace: %w", spec.ErrUnavailable)
	type step struct {
		to    spec.VisitTarget
		err   error
		times int
	}
	for name, tc := range map[string]struct {
		steps  []step
		state  spec.ReachState
		since  int // second of the story
		failed int
		muted  bool
	}{
		"reached":                         {[]step{{served, nil, 3}}, spec.ReachReachable, 1, 0, false},
		"two failures are none":           {[]step{{served, nil, 1}, {served, bad, 2}}, spec.ReachReachable, 1, 2, false},
		"three are":                       {[]step{{served, nil, 1}, {served, bad, 3}}, spec.ReachUnreachable, 4, 3, false},
		"they must be in a row":           {[]step{{served, bad, 2}, {served, nil, 1}, {served, bad, 2}}, spec.ReachReachable, 3, 2, false},
		"never reached":                   {[]step{{served, bad, 5}}, spec.ReachUnreachable, 3, 5, false},
		"and back":                        {[]step{{served, bad, 5}, {served, nil, 2}}, spec.ReachReachable, 6, 0, false},
		"nobody to reach":                 {[]step{{served, nil, 1}, {absent, bad, 9}}, spec.ReachUnknown, 2, 0, false},
		"that isn't held against those":   {[]step{{served, nil, 1}, {absent, bad, 9}, {served, bad, 2}}, spec.ReachUnknown, 2, 2, false},
		"nor are failures from before":    {[]step{{served, bad, 2}, {absent, bad, 1}, {served, bad, 2}}, spec.ReachUnknown, 0, 2, false},
		"unreachable before and after":    {[]step{{served, bad, 3}, {absent, bad, 3}, {served, bad, 3}}, spec.ReachUnreachable, 3, 3, false},
		"a visitor that can't ask":        {[]step{{served, nil, 1}, {served, mute, 3}}, spec.ReachUnknown, 4, 0, true},
		"one that can again":              {[]step{{served, mute, 3}, {served, nil, 1}}, spec.ReachReachable, 4, 0, false},
		"one that couldn't a single time": {[]step{{served, nil, 1}, {served, mute, 1}}, spec.ReachReachable, 1, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			var r record
			second := 0
			for _, s := range tc.steps {
				r.become(s.to)
				for range s.times {
					second++
					now := noon.Add(time.Duration(second) * time.Second)
					r.result(now, now.Add(-time.Millisecond), s.to.Absent, s.err)
				}
			}
			since := time.Time{}
			if tc.since > 0 {
				since = noon.Add(time.Duration(tc.since) * time.Second)
			}
			if r.State != tc.state || !r.Since.Equal(since) || r.Failed != tc.failed || (r.Unasked != "") != tc.muted {
				t.Errorf("%q since %s, %d failed, %q; want %q since %s, %d failed", r.State, r.Since, r.Failed, r.Unasked, tc.state, since, tc.failed)
			}
		})
	}
}

// Visits overlap after a commit: what ends late says nothing of what came after.
func TestRecordKeepsTheOrder(t *testing.T) {
	var r record
	at := func(s int) time.Time { return noon.Add(time.Duration(s) * time.Second) }
	r.result(at(3), at(2), false, nil)
	for range 3 {
		r.result(at(4), at(1), false, errors.New("late"))
	}
	if r.State != spec.ReachReachable || r.Failed != 0 {
		t.Errorf("an old failure counts: %q, %d failed", r.State, r.Failed)
	}
	for range 3 {
		r.result(at(6), at(5), false, errors.New("gone"))
	}
	r.result(at(7), at(3), false, nil)
	if r.State != spec.ReachUnreachable || !r.Asked.Equal(at(3)) {
		t.Errorf("an old success counts: %q, asked %s", r.State, r.Asked)
	}
}

func TestHistory(t *testing.T) {
	var h history
	at := func(ms int) time.Time { return noon.Add(time.Duration(ms) * time.Millisecond) }
	bad := errors.New("connection refused")
	h.add(at(0), at(0))
	h.add(at(5000), at(5000))
	h.turn(at(5100), true) // an operation
	for _, ms := range []int{5150, 5200, 5250} {
		h.add(at(ms), at(ms))
	}
	h.miss(at(5300), at(5300), at(5300), bad)
	h.miss(at(5350), at(5350), at(5350), bad)
	h.add(at(7350), at(7350))
	for since, sent := range map[int]int{5090: 6, -1: 8} {
		got := h.tally(spec.VisitTarget{}, at(since))
		if got.Sent != sent || got.Failed != 2 || got.Reasons["connection refused"] != 2 || got.LongestGap.Std() != 2100*time.Millisecond {
			t.Errorf("tally since %d: %+v", since, got)
		}
	}
}

// What passes before the first visit of an operation is no gap: they are far
// apart while nothing is at work. One that waits for its answer is.
func TestFirstGapOfAnOperation(t *testing.T) {
	at := func(ms int) time.Time { return noon.Add(time.Duration(ms) * time.Millisecond) }
	for name, tc := range map[string]struct {
		due, ended int
		want       time.Duration
	}{
		"asked late":      {900, 910, 60 * time.Millisecond},
		"answered late":   {110, 910, 810 * time.Millisecond},
		"asked before it": {50, 910, 810 * time.Millisecond},
	} {
		var h history
		h.add(at(-4000), at(-4000))
		h.turn(at(100), true)
		h.add(at(tc.due), at(tc.ended))
		h.add(at(950), at(960))
		if got := h.tally(spec.VisitTarget{}, at(100)).LongestGap.Std(); got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
}

// While a rollout is paused, or waits, visits are far apart: that is nobody's
// gap, unless one fails or has to wait for its answer.
func TestGapWhileVisitsAreRare(t *testing.T) {
	at := func(ms int) time.Time { return noon.Add(time.Duration(ms) * time.Millisecond) }
	for name, tc := range map[string]struct {
		fails int // visits of the pause that fail, from its third on
		slow  int // ms that the third visit of the pause waits for its answer
		want  time.Duration
	}{
		"all answered":         {0, 1, 51 * time.Millisecond},
		"one answered late":    {0, 1500, 1550 * time.Millisecond},
		"two refused in a row": {2, 1, 2051 * time.Millisecond},
	} {
		var h history
		h.turn(at(0), true)
		for ms := 0; ms < 1000; ms += 50 {
			h.add(at(ms), at(ms+1))
		}
		h.turn(at(1000), false)
		h.add(at(6000), at(6001))
		h.add(at(11_000), at(11_001))
		due := 16_000
		for range tc.fails {
			h.miss(at(due), at(due), at(due+1), errors.New("connection refused"))
			due += 1000
		}
		h.add(at(due), at(due+tc.slow))
		h.add(at(21_000), at(21_001))
		h.turn(at(23_000), true)
		for ms := 23_000; ms < 24_000; ms += 50 {
			h.add(at(ms), at(ms+1))
		}
		if got := h.tally(spec.VisitTarget{}, at(0)); got.LongestGap.Std() != tc.want || got.Failed != tc.fails {
			t.Errorf("%s: %+v, want a gap of %s", name, got, tc.want)
		}
	}
}

// A gap that nothing has ended is one; and visits of an address that has never
// answered are told, until it does.
func TestHistoryWithoutAnEnd(t *testing.T) {
	at := func(ms int) time.Time { return noon.Add(time.Duration(ms) * time.Millisecond) }
	bad := errors.New("connection refused")
	var h history
	h.add(at(0), at(0))
	for ms := 100; ms <= 17_000; ms += 100 {
		h.miss(at(ms-100), at(ms-10), at(ms), bad)
	}
	if got := h.tally(spec.VisitTarget{}, at(-1)); got.Failed != 170 || got.LongestGap.Std() != 17*time.Second {
		t.Errorf("17 s of refusals: %+v", got)
	}
	h = history{}
	for ms := range 5 {
		h.miss(at(ms*1000), at(ms*1000), at(ms*1000+1), bad)
	}
	if got := h.tally(spec.VisitTarget{}, at(1500)); got.Unreached != 3 || got.Sent != 0 {
		t.Errorf("never answered: %+v", got)
	}
	h.add(at(6000), at(6000))
	if got := h.tally(spec.VisitTarget{}, at(1500)); got.Unreached != 0 || got.Sent != 1 || got.Failed != 0 {
		t.Errorf("answered at last: %+v", got)
	}
}

// An hour with an operation under way is kept, a day without one isn't.
func TestHistoryIsBounded(t *testing.T) {
	var h history
	h.turn(noon, true)
	for s := range 3600 {
		h.add(noon.Add(time.Duration(s)*time.Second), noon.Add(time.Duration(s)*time.Second))
	}
	if got := h.tally(spec.VisitTarget{}, noon); got.Sent != 3600 {
		t.Errorf("%d of 3600 visits are counted", got.Sent)
	}
	end := noon.Add(time.Hour)
	h.turn(end, false)
	h.add(end.Add(time.Second), end.Add(time.Second))
	if got := h.tally(spec.VisitTarget{}, noon); got.Sent != 3601 {
		t.Errorf("just after the operation, %d of 3601 visits are counted", got.Sent)
	}
	for s := range 24 * 720 {
		h.add(end.Add(time.Duration(5*s)*time.Second), end.Add(time.Duration(5*s)*time.Second))
	}
	if n := len(h.entries); n > 20 {
		t.Errorf("%d entries are kept of a quiet day", n)
	}
}
