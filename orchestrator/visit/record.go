package visit

import (
	"errors"
	"time"

	"dunnage/spec"
)

// tries is how many visits in a row must fail until a target counts as
// unreachable.
const tries = 3

// record is what the results at one target amount to.
type record struct {
	spec.Reach
	untried int // visits in a row that couldn't be tried
}

// become takes what the loop says of the target now. Failures from the time
// when no replica took connections say nothing of the way to one.
func (r *record) become(to spec.VisitTarget) {
	if r.Absent != to.Absent {
		r.forgive()
	}
	r.VisitTarget = to
}

func (r *record) forgive() { r.Failed, r.Failing = 0, time.Time{} }

// idle reports whether there is nothing to ask for: nobody has ever been
// served at the target, nor can be now.
func (r *record) idle() bool { return r.Absent && r.Asked.IsZero() }

// result takes the result of a visit that began at began and ended at now;
// absent: at its beginning or end no replica took connections.
func (r *record) result(now, began time.Time, absent bool, err error) {
	switch {
	case errors.Is(err, spec.ErrUnavailable):
		if r.untried++; r.untried >= tries {
			r.turn(spec.ReachUnknown, now)
			r.Unasked = err.Error()
			r.forgive()
		}
		return
	case err == nil:
		r.reached(now, began)
	case began.Before(r.Asked): // a later visit has succeeded meanwhile
	case !absent:
		r.failed(now, began, err)
	case r.State == spec.ReachReachable:
		// Whether it would be reached isn't known. One that was unreachable
		// before the replicas went stays so: nothing says that this is over.
		r.turn(spec.ReachUnknown, now)
	}
	r.untried, r.Unasked = 0, ""
}

func (r *record) reached(now, began time.Time) {
	if began.After(r.Asked) {
		r.Asked, r.Latency = began, spec.Duration(now.Sub(began))
	}
	if began.Before(r.Failing) { // it says nothing of what came after it
		return
	}
	r.turn(spec.ReachReachable, now)
	r.forgive()
	r.Detail = ""
}

func (r *record) failed(now, began time.Time, err error) {
	if r.Failed++; r.Failed == 1 {
		r.Failing = began
	}
	r.Detail = err.Error()
	if r.Failed >= tries {
		r.turn(spec.ReachUnreachable, now)
	}
}

func (r *record) turn(s spec.ReachState, now time.Time) {
	if r.State != s {
		r.State, r.Since = s, now
	}
}
