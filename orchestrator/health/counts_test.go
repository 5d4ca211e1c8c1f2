package health

import (
	"errors"
	"testing"
	"time"

	"dunnage/internal/keyed"
	"dunnage/spec"
)

// A failed probe counts once the replica has passed; while it starts, it is
// what probes are for.
func TestCounts(t *testing.T) {
	s := &script{err: map[string]error{"a": errors.New("not yet")}}
	m := monitor(t, s)
	started := time.Now()
	to := target("a", started, spec.Probe{Kind: spec.ProbeTCP, StartPeriod: spec.Duration(time.Hour)})
	to.Project, to.Service = "shop", "web"
	m.Watch([]spec.ProbeTarget{to})
	for m.Checks("a", started) == nil {
		time.Sleep(time.Millisecond)
	}
	s.set("a", nil)
	m.await(t, "a", started, spec.HealthHealthy)
	if n := m.Counts(); len(n) != 1 || n[0].Failed != 0 || n[0].Passed == 0 || n[0].Project != "shop" || n[0].Kind != spec.ProbeTCP {
		t.Errorf("after the start: %+v", n)
	}
	s.set("a", errors.New("gone away"))
	m.await(t, "a", started, spec.HealthUnhealthy)
	if n := m.Counts(); n[0].Failed == 0 {
		t.Errorf("after a failure: %+v", n)
	}
	m.Watch(nil)
	m.mu.Lock()
	m.counts.forget(nil, time.Now().Add(2*keyed.LastsFor))
	m.mu.Unlock()
	if n := m.Counts(); len(n) != 0 {
		t.Errorf("long after: %+v", n)
	}
}
