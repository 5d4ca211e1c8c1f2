package visit

import (
	"cmp"
	"slices"
	"time"

	"dunnage/internal/keyed"
	"dunnage/spec"
)

// counts are the visits of each service, by project and service, since the agent
// began.
type counts struct {
	keyed.Lasting[[2]string, spec.VisitCount]
}

func (c *counts) of(t spec.VisitTarget) *spec.VisitCount {
	return c.Of([2]string{t.Project, t.Service}, func() spec.VisitCount {
		return spec.VisitCount{Project: t.Project, Service: t.Service, Answered: spec.NewHistogram(spec.CallBounds)}
	})
}

// forget drops the counts of services that were left long ago.
func (c *counts) forget(now []spec.VisitTarget, at time.Time) {
	visited := map[[2]string]bool{}
	for _, t := range now {
		visited[[2]string{t.Project, t.Service}] = true
	}
	c.Forget(func(k [2]string) bool { return visited[k] }, at)
}

// Counts says what visits have found so far, sorted by project and service.
func (v *Visitor) Counts() []spec.VisitCount {
	v.mu.Lock()
	defer v.mu.Unlock()
	all := slices.SortedFunc(v.counts.All(), func(a, b spec.VisitCount) int {
		return cmp.Or(cmp.Compare(a.Project, b.Project), cmp.Compare(a.Service, b.Service))
	})
	for i := range all {
		all[i].Answered = all[i].Answered.Clone()
	}
	return all
}
