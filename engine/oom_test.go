package engine

import (
	"testing"
	"time"
)

// TestWhomTheOOMKills: a kill for memory is the cause of an end that comes with it,
// and of no later one.
func TestWhomTheOOMKills(t *testing.T) {
	at := func(seconds float64) time.Time {
		return time.Unix(1_700_000_000, 0).Add(time.Duration(seconds * float64(time.Second)))
	}
	type look struct {
		second  float64
		kills   int64
		outlive int64
	}
	for name, tc := range map[string]struct {
		adopted bool
		looks   []look
		kills   int64 // at the end
		ended   float64
		oom     bool
	}{
		"none":                                  {false, []look{{0, 0, 0}}, 0, 1, false},
		"it was killed":                         {false, []look{{0, 0, 0}}, 1, 1, true},
		"never looked at":                       {false, nil, 1, 1, true},
		"seen before its end was":               {false, []look{{0, 0, 0}, {1, 1, 0}}, 1, 0.9, true},
		"seen before it was gone":               {false, []look{{0, 0, 0}, {1, 1, 0}}, 1, 2, true},
		"a child before":                        {false, []look{{0, 0, 0}, {1, 1, 0}, {3, 1, 1}}, 1, 4, false},
		"a child before, no look since":         {false, []look{{0, 0, 0}, {1, 1, 0}}, 1, 4, false},
		"a child before, then it":               {false, []look{{0, 0, 0}, {1, 1, 0}, {3, 1, 1}}, 2, 4, true},
		"a child, another one, then it":         {false, []look{{0, 1, 0}, {1, 2, 0}, {2, 2, 1}, {3, 2, 1}}, 3, 3.5, true},
		"children all the time":                 {false, []look{{0, 1, 0}, {1, 2, 0}, {2, 3, 1}, {3, 4, 1}, {4, 4, 3}, {6, 4, 4}}, 4, 7, false},
		"a child before this agent":             {true, []look{{0, 3, 3}, {1, 3, 3}}, 3, 2, false},
		"a child before this agent, and now it": {true, []look{{0, 3, 3}, {1, 3, 3}}, 4, 2, true},
	} {
		var w oomWatch
		w.running("web-1", 6, 7, false, at(-10)) // an earlier run's
		for _, l := range tc.looks {
			if got := w.running("web-1", 7, l.kills, tc.adopted, at(l.second)); got != l.outlive {
				t.Errorf("%s: after %v s it has outlived %d, want %d", name, l.second, got, l.outlive)
			}
		}
		for range 2 { // every look at what has ended says the same
			if got := w.ended("web-1", 7, tc.kills, at(tc.ended)); got != tc.oom {
				t.Errorf("%s: for want of memory: %t", name, got)
			}
		}
	}
}
