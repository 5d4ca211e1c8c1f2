package orchestrator

import (
	"testing"
	"time"
)

// A host at rest is looked at when a second begins, and never later than before;
// what is due sooner keeps its time.
func TestInStep(t *testing.T) {
	at := time.Date(2026, 1, 1, 12, 0, 0, 300e6, time.UTC)
	for _, tc := range []struct{ wait, want time.Duration }{
		{0, 0}, {100 * time.Millisecond, 100 * time.Millisecond}, {900 * time.Millisecond, 900 * time.Millisecond},
		{lookAnyway, lookAnyway - 300*time.Millisecond},
	} {
		if got := inStep(at, tc.wait); got != tc.want {
			t.Errorf("wait %s becomes %s, want %s", tc.wait, got, tc.want)
		}
	}
	if got := inStep(at.Truncate(time.Second), lookAnyway); got != lookAnyway {
		t.Errorf("at a full second: %s", got)
	}
}
