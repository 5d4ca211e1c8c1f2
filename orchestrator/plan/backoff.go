package plan

import (
	"time"

	"dunnage/spec"
)

// Numbers of the restart policy. Docker doubles from 100 ms up to a minute and
// forgets after 10 s of running; the first restart here is immediate, since a
// process that ran well until it was killed should be back at once.
const (
	backoffFirst = 100 * time.Millisecond
	backoffMax   = 30 * time.Second
	// LongRun is how long a run must last for its end not to count as a
	// consecutive failure.
	LongRun = 10 * time.Second

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

// restarts reports whether the policy starts the replica again after its
// recorded exit.
func restarts(r spec.ReplicaRecord) bool {
	if r.Unwell {
		return true
	}
	switch r.Restart.Mode {
	case spec.RestartAlways, spec.RestartUnlessStopped:
		return true
	case spec.RestartOnFailure:
		failed := r.Exit == nil || r.Exit.Code != 0
		return failed && (r.Restart.Max == 0 || r.Restarts < r.Restart.Max)
	default:
		return false
	}
}

// retryAt is when a failed action may be tried again; zero = now.
func retryAt(r Replica) time.Time {
	if r.Errors == 0 {
		return time.Time{}
	}
	return r.ErrorAt.Add(backoff(r.Errors + 1))
}
