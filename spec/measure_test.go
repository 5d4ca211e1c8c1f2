package spec

import (
	"slices"
	"testing"
	"time"
)

func TestHistogram(t *testing.T) {
	h := NewHistogram(bounds(time.Second, time.Minute))
	for _, d := range []time.Duration{0, time.Second, time.Second + 1, time.Minute, time.Hour} {
		h.Observe(d)
	}
	before := h.Clone()
	h.Observe(0)
	if !slices.Equal(before.Counts, []uint64{2, 2}) || before.Count != 5 || before.Sum != Duration(time.Hour+time.Minute+2*time.Second+1) {
		t.Errorf("%+v", before)
	}
	if h.Count != 6 || h.Counts[0] != 3 {
		t.Errorf("after another: %+v", h)
	}
	var none Histogram
	none.Observe(time.Second)
	if none.Count != 1 || none.Sum != Duration(time.Second) {
		t.Errorf("without bounds: %+v", none)
	}
}

// A copy of what was counted stays as it was.
func TestCountedClone(t *testing.T) {
	c := Counted{
		Operations: map[OperationCount]uint64{{"shop", "deploy", OperationDone}: 1}, Durations: map[string]Histogram{"deploy": NewHistogram(DeployBounds)},
		Events: map[EventKind]uint64{EventReady: 1}, Repairs: map[DamageKind]uint64{DamageJump: 1}, Look: NewHistogram(WorkBounds),
	}
	was := c.Clone()
	c.Operations[OperationCount{"shop", "deploy", OperationDone}]++
	c.Events[EventReady]++
	c.Repairs[DamageJump]++
	h := c.Durations["deploy"]
	h.Observe(0)
	c.Look.Observe(0)
	if was.Operations[OperationCount{"shop", "deploy", OperationDone}] != 1 || was.Events[EventReady] != 1 || was.Repairs[DamageJump] != 1 ||
		was.Durations["deploy"].Counts[0] != 0 || was.Look.Counts[0] != 0 {
		t.Errorf("%+v", was)
	}
}
