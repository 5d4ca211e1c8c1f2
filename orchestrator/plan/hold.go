package plan

import (
	"time"

	"dunnage/spec"
)

// Absence is a time in which no replica of a service is ready. New connections
// are held from its beginning on, for as long as the service says.
type Absence struct {
	Since time.Time
	Over  time.Time // when a replica was ready again; zero = none is
	Until time.Time // the end of the hold; not after Since if nothing is held
}

// lasts reports whether it hasn't ended.
func (a Absence) lasts() bool { return a.Over.IsZero() }

// Holds reports whether connections are held.
func (a Absence) Holds(now time.Time) bool { return a.lasts() && now.Before(a.Until) }

// absences works out which services have no replica that is ready, and since
// when, from what the look before worked out. What isn't known of yet, as after
// a start of the agent, begins now.
func absences(all []*view, o Observed) map[string]Absence {
	var out map[string]Absence
	for _, v := range all {
		if a, ok := v.absence(o); ok {
			if out == nil {
				out = map[string]Absence{}
			}
			out[v.path()] = a
		}
	}
	return out
}

// path names the service on this host.
func (v *view) path() string { return v.project.Record.Name + "/" + v.Name }

// absence is the present one of the service, or the last, as long as another
// would only go on with it: a service that crashes again and again is held
// once, not after each crash.
func (v *view) absence(o Observed) (Absence, bool) {
	a, known := o.Absent[v.path()]
	switch {
	case v.stopped || v.Replicas == 0:
		return Absence{}, false // on request: it begins anew when replicas are wanted again
	case len(v.backends()) > 0:
		if known && a.lasts() {
			a.Over = o.Now
		}
		return a, known && o.Now.Sub(a.Over) < v.Hold.Std()
	case !known, !a.lasts() && (o.Now.Sub(a.Over) >= v.Hold.Std() || v.project.Record.Since.After(a.Since)):
		a = Absence{Since: o.Now}
	case v.project.Record.Since.After(a.Since): // a release came since, and with it another hope
		a.Since = v.project.Record.Since
	}
	a.Over, a.Until = time.Time{}, a.Since
	if v.hopeful() {
		a.Until = a.Since.Add(v.Hold.Std())
	}
	return a, true
}

// hopeful reports whether a replica may become ready that isn't: jobs that are
// done and what isn't started again don't.
func (v *view) hopeful() bool {
	for _, r := range v.current {
		over := r.Record.Exit != nil && !r.Record.Running && !r.Record.Requested && !r.Alive()
		if !over || restarts(r.Record) {
			return true
		}
	}
	return len(v.missing) > 0
}

// absent says what becomes of connections while the service has no backend.
// UDP has none that could wait: nobody sends a lost datagram again, and who is
// told at once may ask elsewhere.
func (v *view) absent(held map[string]Absence, now time.Time, proto spec.Protocol) spec.Absent {
	if proto != spec.UDP && held[v.path()].Holds(now) {
		return spec.Hold
	}
	return spec.Refuse
}

// hurried is how long an old replica may drain that is in the way of new ones,
// while new connections are held: the rest of that time is for it to stop and
// for a new one to get ready.
const hurried = 4 // its part of the hold

// drain is how long connections of a replica that no rule names may finish.
func (b *builder) drain(r *Replica) time.Duration {
	limit := r.Record.Drain.Std()
	if h, ok := b.hasty[r.Project+"/"+r.Service]; ok && r.Generation != h.gen && h.Hold > 0 && len(h.backends()) == 0 {
		limit = min(limit, h.Hold.Std()/hurried)
	}
	return limit
}
