package health

import (
	"errors"
	"testing"
	"time"

	"dunnage/spec"
)

var errDown = errors.New("down")

func TestRecord(t *testing.T) {
	started := time.Unix(1000, 0)
	probe := spec.Probe{Kind: spec.ProbeTCP, Interval: spec.Duration(5 * time.Second), Retries: 3, StartPeriod: spec.Duration(10 * time.Second)}
	type step struct {
		after time.Duration // since the start
		err   error
		want  spec.Health
	}
	for name, steps := range map[string][]step{
		"healthy at the first success":                         {{0, nil, spec.HealthHealthy}},
		"failures in the start period don't count":             {{0, errDown, spec.HealthStarting}, {9 * time.Second, errDown, spec.HealthStarting}, {10 * time.Second, nil, spec.HealthHealthy}},
		"patience is start period plus retries times interval": {{24 * time.Second, errDown, spec.HealthStarting}, {25 * time.Second, errDown, spec.HealthUnhealthy}},
		"unhealthy after the retries":                          {{0, nil, spec.HealthHealthy}, {5 * time.Second, errDown, spec.HealthHealthy}, {10 * time.Second, errDown, spec.HealthHealthy}, {15 * time.Second, errDown, spec.HealthUnhealthy}},
		"a success in between starts the count anew":           {{0, nil, spec.HealthHealthy}, {5 * time.Second, errDown, spec.HealthHealthy}, {6 * time.Second, nil, spec.HealthHealthy}, {7 * time.Second, errDown, spec.HealthHealthy}, {8 * time.Second, errDown, spec.HealthHealthy}},
		"healthy again after unhealthy":                        {{30 * time.Second, errDown, spec.HealthUnhealthy}, {31 * time.Second, nil, spec.HealthHealthy}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRecord(probe, started)
			for i, s := range steps {
				r.result(started.Add(s.after), s.err)
				if r.health != s.want {
					t.Fatalf("step %d: %s, want %s", i, r.health, s.want)
				}
			}
		})
	}
}

// The first looks come fast, later ones at most a second apart, and after the
// first success at the interval.
func TestRecordSchedule(t *testing.T) {
	started := time.Unix(1000, 0)
	r := newRecord(spec.Probe{Interval: spec.Duration(30 * time.Second), Retries: 3}, started)
	if d := r.result(started, errDown); d > 20*time.Millisecond {
		t.Errorf("second look after %s", d)
	}
	var d time.Duration
	for range 100 {
		d = r.result(started, errDown)
	}
	if d != time.Second {
		t.Errorf("after 100 failures the next look is in %s, want 1s", d)
	}
	if d := r.result(started, nil); d != 30*time.Second {
		t.Errorf("after a success the next look is in %s, want 30s", d)
	}
}

func TestRecordWithoutIntervalDoesNotSpin(t *testing.T) {
	r := newRecord(spec.Probe{}, time.Unix(0, 0))
	if d := r.result(time.Unix(1, 0), nil); d < 100*time.Millisecond {
		t.Fatalf("next look in %s", d)
	}
}
