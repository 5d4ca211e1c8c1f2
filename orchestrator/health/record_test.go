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
			r := newRecord(probe, spec.ProbeTarget{StartedAt: started}, started)
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
	r := newRecord(spec.Probe{Interval: spec.Duration(30 * time.Second), Retries: 3}, spec.ProbeTarget{StartedAt: started}, started)
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
	r := newRecord(spec.Probe{}, spec.ProbeTarget{}, time.Unix(0, 0))
	if d := r.result(time.Unix(1, 0), nil); d < 100*time.Millisecond {
		t.Fatalf("next look in %s", d)
	}
}

// With a start interval the process is looked at in that rhythm until its first
// success, and then in the other.
func TestRecordStartInterval(t *testing.T) {
	started := time.Unix(1000, 0)
	probe := spec.Probe{Interval: spec.Duration(30 * time.Second), StartInterval: spec.Duration(2 * time.Second), StartPeriod: spec.Duration(time.Minute), Retries: 3}
	r := newRecord(probe, spec.ProbeTarget{StartedAt: started}, started)
	for range 10 {
		if d := r.result(started, errDown); d != 2*time.Second {
			t.Fatalf("next look in %s, want 2s", d)
		}
	}
	for _, err := range []error{nil, errDown} {
		if d := r.result(started, err); d != 30*time.Second {
			t.Errorf("after the first success the next look is in %s, want 30s", d)
		}
	}
	probe.StartInterval = 1
	r = newRecord(probe, spec.ProbeTarget{StartedAt: started}, started)
	if d := r.result(started, errDown); d < 100*time.Millisecond {
		t.Errorf("a start interval of 1ns: next look in %s", d)
	}
}

// An agent that was restarted on a busy host doesn't condemn a process that has
// run for long because of one late answer.
func TestRecordAdopted(t *testing.T) {
	started := time.Unix(1000, 0)
	probe := spec.Probe{Interval: spec.Duration(5 * time.Second), Retries: 3}
	now := started.Add(time.Hour)
	r := newRecord(probe, spec.ProbeTarget{StartedAt: started, Adopted: true}, now)
	for i, want := range []spec.Health{spec.HealthUnknown, spec.HealthUnknown, spec.HealthUnhealthy} {
		if r.result(now, errDown); r.health != want {
			t.Errorf("failure %d: %q, want %q", i+1, r.health, want)
		}
	}
	young := newRecord(probe, spec.ProbeTarget{StartedAt: started, Adopted: true}, started.Add(time.Second))
	if young.result(started.Add(2*time.Second), errDown); young.health != spec.HealthUnknown {
		t.Errorf("a process that has just started: %q", young.health)
	}
}
