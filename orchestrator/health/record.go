package health

import (
	"time"

	"dunnage/spec"
)

// Numbers of the schedule before the first success: a deploy waits for it, so
// it is looked for often at first and less often the longer it takes.
const (
	firstRetry = 5 * time.Millisecond
	maxRetry   = time.Second
	// runningFor is how long a process must live to count as healthy when
	// nothing else can be asked of it.
	runningFor = 2 * time.Second
)

// record is what the results of one probe amount to.
type record struct {
	probe    spec.Probe
	since    time.Time // the first success is waited for: the start of the process, or a later Again
	tries    int
	passed   bool // at least once
	failures int  // consecutive
	health   spec.Health
	detail   string
	output   []string // what the command printed whose failure detail is
}

// minInterval keeps a probe without an interval from spinning.
const minInterval = spec.Duration(100 * time.Millisecond)

func newRecord(p spec.Probe, t spec.ProbeTarget, now time.Time) record {
	p.Interval = max(p.Interval, minInterval)
	if p.StartInterval > 0 {
		p.StartInterval = max(p.StartInterval, minInterval)
	}
	r := record{probe: p, since: t.StartedAt, health: spec.HealthStarting}
	if t.Adopted {
		r.health = spec.HealthUnknown
		// Past its start the process counts as one that has passed: after a
		// restart of the agent one late answer is no reason to replace it.
		r.passed = now.Sub(t.StartedAt) >= r.patience()
	}
	return r
}

// gaveUp reports whether the probe has failed for good without a success.
func (r record) gaveUp() bool { return !r.passed && r.health == spec.HealthUnhealthy }

// patience is how long a process may take to its first success.
func (r *record) patience() time.Duration {
	return r.probe.StartPeriod.Std() + time.Duration(r.probe.Retries)*r.probe.Interval.Std()
}

// result takes a result at now and returns when to look again.
//
// Before the first success, failures count by time, not by number, since the
// probe repeats faster than its interval: the replica is unhealthy when the
// start period and retries × interval have passed.
func (r *record) result(now time.Time, err error) time.Duration {
	r.tries++
	if err == nil {
		r.passed, r.failures, r.health, r.detail, r.output = true, 0, spec.HealthHealthy, "", nil
		return r.probe.Interval.Std()
	}
	r.detail, r.output = err.Error(), outputOf(err)
	if r.passed {
		r.failures++
		if r.failures >= r.probe.Retries {
			r.health = spec.HealthUnhealthy
		}
		return r.probe.Interval.Std()
	}
	if now.Sub(r.since) >= r.patience() {
		r.health = spec.HealthUnhealthy
	}
	return r.retry()
}

// fail takes a failure that is enough by itself.
func (r *record) fail(err error) {
	r.failures = max(r.failures+1, r.probe.Retries)
	r.health, r.detail, r.output = spec.HealthUnhealthy, err.Error(), outputOf(err)
}

// retry is the time to the next look before the first success.
func (r *record) retry() time.Duration {
	if r.probe.StartInterval > 0 {
		return r.probe.StartInterval.Std()
	}
	d := firstRetry << min(r.tries/4, 10)
	return min(d, maxRetry, r.probe.Interval.Std())
}
