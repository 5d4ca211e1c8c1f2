package main

import (
	"net/netip"
	"testing"
	"time"

	"dunnage/spec"
)

// A way that fails isn't called reachable: it is said when it last was.
func TestWhatTheVisitorFound(t *testing.T) {
	now := time.Date(2026, 11, 22, 3, 0, 7, 0, time.UTC)
	to, other := netip.MustParseAddrPort("198.51.100.7:8080"), netip.MustParseAddrPort("198.51.100.8:8080")
	for want, w := range map[string]spec.ExplainedWay{
		"":                               {OK: true},
		"reachable":                      {OK: true, Reached: &spec.Reach{State: spec.ReachReachable, Asked: now.Add(-4 * time.Second)}},
		"last reached 7s ago":            {Reached: &spec.Reach{State: spec.ReachReachable, Asked: now.Add(-7 * time.Second)}},
		"last reached 9s ago":            {OK: true, Reached: &spec.Reach{State: spec.ReachReachable, Asked: now.Add(-9 * time.Second), Failed: 1, Detail: "connect: timeout"}},
		"unreachable: connect: timeout":  {Reached: &spec.Reach{State: spec.ReachUnreachable, Detail: "connect: timeout"}},
		"at 198.51.100.8:8080 reachable": {OK: true, Reached: &spec.Reach{VisitTarget: spec.VisitTarget{Addr: other}, State: spec.ReachReachable}},
	} {
		w.Packet.To = to
		if w.Reached != nil && !w.Reached.Addr.IsValid() {
			w.Reached.Addr = to
		}
		if got := (&program{now: func() time.Time { return now }}).visitor(w); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
