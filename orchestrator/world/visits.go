package world

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"time"

	"dunnage/spec"
)

// Fronts are an address of documentation.
func (w *World) Fronts(context.Context) ([]netip.Addr, error) {
	return []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, 1})}, nil
}

// Visits is the visitor of a World. It answers by what the kernel's rules say:
// each time that it is asked, it has just been everywhere.
type Visits struct{ *World }

// visitTries is how many failed visits, one a second, make a target unreachable.
const visitTries = 3

// Watch takes the set of targets.
func (v Visits) Watch(targets []spec.VisitTarget) {
	v.mu.Lock()
	defer v.mu.Unlock()
	before := v.visited
	v.visited = map[string]spec.Reach{}
	for _, t := range targets {
		r := before[t.Key()]
		if r.Absent != t.Absent {
			r.Failed, r.Failing = 0, time.Time{}
		}
		r.VisitTarget = t
		v.visited[t.Key()] = r
	}
}

// Again makes what was found until now older than this moment.
func (v Visits) Again() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for key, r := range v.visited {
		if !r.Asked.IsZero() {
			r.Asked = r.Asked.Add(-time.Nanosecond)
		}
		v.visited[key] = r
	}
}

// Reach visits everything.
func (v Visits) Reach() []spec.Reach {
	v.mu.Lock()
	defer v.mu.Unlock()
	var all []spec.Reach
	for key, r := range v.visited {
		v.visit(&r)
		v.visited[key] = r
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b spec.Reach) int { return cmp.Compare(a.Key(), b.Key()) })
	return all
}

func (v Visits) visit(r *spec.Reach) {
	turn := func(s spec.ReachState) {
		if r.State != s {
			r.State, r.Since = s, v.now
		}
	}
	switch {
	case v.answers(r.VisitTarget) || v.Lie == LieReached || v.Lie == LieEqual:
		turn(spec.ReachReachable)
		r.Asked, r.Failed, r.Failing, r.Detail = v.now, 0, time.Time{}, ""
	case r.Absent && r.State == spec.ReachReachable:
		turn(spec.ReachUnknown)
	case r.Absent:
	default:
		if r.Failing.IsZero() {
			r.Failing = v.now
		}
		r.Failed, r.Detail = 1+int(v.now.Sub(r.Failing)/time.Second), "no answer within 1s"
		if r.Failed >= visitTries {
			turn(spec.ReachUnreachable)
		}
	}
}

// Tally keeps no count.
func (Visits) Tally(string, time.Time) []spec.VisitTally { return nil }

// answers reports whether a client gets through to some replica.
func (w *World) answers(t spec.VisitTarget) bool {
	if w.flushed || w.Blocked[t.Port] {
		return false
	}
	var backends []spec.Backend
	for _, p := range w.kernel.Published {
		if t.Port > 0 && p.Port == t.Port && p.Protocol == spec.TCP {
			backends = p.Backends
		}
	}
	for _, s := range w.kernel.Services {
		if t.Port == 0 && s.Addr == t.Addr.Addr() {
			backends = s.Backends
		}
	}
	return slices.ContainsFunc(backends, func(b spec.Backend) bool {
		c := w.containers[b.Replica]
		return c != nil && w.serves(b.Replica) && !w.images[c.req.Image.Digest].Deaf
	})
}
