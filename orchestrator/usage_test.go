package orchestrator

import (
	"testing"
	"time"

	"dunnage/orchestrator/world"
	"dunnage/spec"
)

// TestStats: who runs is counted, with rates since the start at first, then since
// a count that is a second old or older.
func TestStats(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	if op := ask(t, s, valid("shop", "fast")); op.State != spec.OperationDone {
		t.Fatalf("%+v", op)
	}
	s.w.Advance(time.Minute)
	stats := func() spec.Stats {
		t.Helper()
		st, err := s.loop.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	st := stats()
	if len(st.Replicas) != 1 || st.Memory == 0 || st.Cores == 0 || len(st.Own) == 0 {
		t.Fatalf("%+v", st)
	}
	r := st.Replicas[0]
	if r.Project != "shop" || r.Service != "web" || r.Started.IsZero() || r.Received == 0 || r.Sent != 2*r.Received {
		t.Errorf("%+v", r.Usage)
	}
	if r.Rates == nil || r.Rates.Over.Std() < time.Minute || r.Rates.Cores < 0.09 || r.Rates.Cores > 0.11 {
		t.Errorf("rates since its start: %+v", r.Rates)
	}
	for _, tc := range []struct{ after, over time.Duration }{
		{5 * time.Second, 5 * time.Second},
		{500 * time.Millisecond, 5500 * time.Millisecond}, // since the count before the last one
		{time.Second, time.Second},
	} {
		s.loop.samples.put(sampleOf(stats()))
		s.w.Advance(tc.after)
		if r := stats().Replicas[0]; r.Rates == nil || r.Rates.Over.Std() != tc.over {
			t.Errorf("after %s: %+v, want over %s", tc.after, r.Rates, tc.over)
		}
	}
}
