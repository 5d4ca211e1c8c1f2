package plan

import (
	"cmp"
	"time"

	"dunnage/spec"
)

// Numbers of the restart policy. Docker doubles from 100 ms up to a minute and
// forgets after 10 s of running; the first restart here is immediate, since a
// process that ran well until it was killed should be back at once.
const (
	backoffFirst = 100 * time.Millisecond
	backoffMax   = 30 * time.Second
	backoffFull  = 10 * time.Second // the first, of one that fills its writable layer at once
	// longRun is how long a run must last for its end not to count as a
	// consecutive failure, unless the service says otherwise.
	longRun = 10 * time.Second

	// A replica of a new release may fail this often in a row until the
	// release is given up. On a first deploy there is nothing to go back to and
	// what it depends on may still be initialising, so it gets longer: eight
	// tries take at least 12.7 s.
	triesWithRollback = 3
	triesWithout      = 8
)

// backoff is the time from an exit to the next start after so many
// consecutive failures.
func backoff(failures int) time.Duration {
	if failures <= 1 {
		return 0
	}
	d := backoffFirst
	for range min(failures-2, 20) {
		d = min(2*d, backoffMax)
	}
	return d
}

// startsAgainAt is when a replica that its policy starts again is to be.
func startsAgainAt(r spec.ReplicaRecord) time.Time {
	wait := r.Restart.Delay.Std()
	if wait == 0 {
		wait = backoff(r.Failures)
	}
	if r.Exit.Disk > 0 && r.Failures > 1 {
		wait = max(wait, min(backoffFull<<min(r.Failures-2, 8), backoffMax))
	}
	return r.Exit.At.Add(wait)
}

// Failures is how many runs in a row have failed when one of the given length
// has ended.
func Failures(r spec.ReplicaRecord, run time.Duration) int {
	long := longEnough(r)
	if r.Exit != nil && r.Exit.Disk > 0 {
		long = freshRun
	}
	if run >= long {
		return 1
	}
	return r.Failures + 1
}

// longEnough is how long a run of the replica must last to count as a good one.
func longEnough(r spec.ReplicaRecord) time.Duration { return cmp.Or(r.Restart.Window.Std(), longRun) }

// restarts reports whether the policy starts the replica again after its
// recorded exit.
func restarts(r spec.ReplicaRecord) bool {
	if r.Unwell {
		return true
	}
	left := r.Restart.Max == 0 || r.Failures <= r.Restart.Max
	switch r.Restart.Mode {
	case spec.RestartAlways, spec.RestartUnlessStopped:
		return left
	case spec.RestartOnFailure:
		return left && (r.Exit == nil || r.Exit.Code != 0)
	default:
		return false
	}
}

// retryAt is when a failed action may be tried again; zero = now.
func retryAt(r *Replica) time.Time {
	if r.Errors == 0 {
		return time.Time{}
	}
	return r.ErrorAt.Add(backoff(r.Errors + 1))
}
