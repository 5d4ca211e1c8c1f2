package orchestrator

import (
	"slices"
	"testing"
	"time"
)

// repairsOf plays a tool against a mender until end: undoes says when the tool
// undoes the repair that ended at a time. It returns when repairs began, each of
// which takes took.
func repairsOf(undoes func(repaired time.Duration) time.Duration, took, end time.Duration) (began []time.Duration) {
	var m mender
	start := time.Unix(0, 0).Add(time.Hour)
	for undone := time.Duration(0); undone <= end; {
		at := max(m.damaged(start.Add(undone)).Sub(start), undone)
		began = append(began, at)
		m.repaired(start.Add(at+took), took)
		undone = undoes(at + took)
	}
	return began
}

// When what is undone at some times is repaired.
func TestMender(t *testing.T) {
	const ms = time.Millisecond
	after := func(d time.Duration) func(time.Duration) time.Duration {
		return func(repaired time.Duration) time.Duration { return repaired + d }
	}
	every := func(d time.Duration) func(time.Duration) time.Duration {
		return func(repaired time.Duration) time.Duration { return repaired.Truncate(d) + d }
	}
	for name, c := range map[string]struct {
		undoes    func(repaired time.Duration) time.Duration
		took, end time.Duration
		want      []time.Duration // of the first repairs
		n         int             // of all
	}{
		"every 8 s":                         {every(8 * time.Second), 30 * ms, time.Hour, []time.Duration{0, 8000 * ms, 16000 * ms, 24000 * ms, 32000 * ms, 40000 * ms, 48000 * ms}, 451},
		"every second":                      {every(time.Second), 30 * ms, time.Minute, []time.Duration{0, 1000 * ms, 2000 * ms, 3000 * ms, 4000 * ms, 5000 * ms, 6000 * ms, 7000 * ms}, 61},
		"at once":                           {after(0), 5 * ms, 10 * time.Second, []time.Duration{0, 5 * ms, 10 * ms, 15 * ms, 20 * ms, 225 * ms, 430 * ms, 635 * ms}, 54},
		"at once, and repairs take longer":  {after(0), 30 * ms, 10 * time.Second, []time.Duration{0, 30 * ms, 60 * ms, 90 * ms, 120 * ms, 450 * ms, 780 * ms}, 35},
		"at once, and repairs take longest": {after(0), time.Second, 10 * time.Second, []time.Duration{0, 1000 * ms, 2000 * ms, 3000 * ms, 4000 * ms, 6000 * ms, 8000 * ms, 10000 * ms}, 8},
		"soon":                              {after(150 * ms), 5 * ms, 10 * time.Second, []time.Duration{0, 155 * ms, 310 * ms, 465 * ms, 620 * ms, 825 * ms, 1030 * ms}, 51},
		"as late as a pause":                {after(200 * ms), 5 * ms, 10 * time.Second, []time.Duration{0, 205 * ms, 410 * ms, 615 * ms, 820 * ms, 1025 * ms, 1230 * ms}, 49},
	} {
		got := repairsOf(c.undoes, c.took, c.end)
		if len(got) != c.n || !slices.Equal(got[:len(c.want)], c.want) {
			t.Errorf("%s: %d repairs at %v, want %d at %v", name, len(got), got[:min(len(got), len(c.want))], c.n, c.want)
		}
	}
}

// One repair that holds for a while ends the pauses.
func TestMenderEndsItsPauses(t *testing.T) {
	var m mender
	now := time.Unix(0, 0).Add(time.Hour)
	for range 2 * insistent {
		now = m.damaged(now)
		m.repaired(now, 0)
	}
	if due := m.damaged(now); due != now.Add(shortestPause) {
		t.Fatalf("a repair undone at once is due after %v", due.Sub(now))
	}
	m.repaired(now.Add(shortestPause), 0)
	now = now.Add(shortestPause + undoneAtOnce)
	for range insistent {
		if due := m.damaged(now); due != now {
			t.Fatalf("after a repair that held, the next waits %v", due.Sub(now))
		}
		m.repaired(now, 0)
	}
}
