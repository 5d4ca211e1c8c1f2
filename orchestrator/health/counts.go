package health

import (
	"cmp"
	"slices"
	"time"

	"dunnage/internal/keyed"
	"dunnage/spec"
)

type countKey struct {
	project, service string
	kind             spec.ProbeKind
}

// counts are the probes of each service since the agent began.
type counts struct {
	keyed.Lasting[countKey, spec.ProbeCount]
}

// add counts a result; a failure only where it isn't expected.
func (c *counts) add(t spec.ProbeTarget, kind spec.ProbeKind, err error, known bool) {
	n := c.Of(countKey{t.Project, t.Service, kind}, func() spec.ProbeCount {
		return spec.ProbeCount{Project: t.Project, Service: t.Service, Kind: kind}
	})
	switch {
	case err == nil:
		n.Passed++
	case known:
		n.Failed++
	}
}

// forget drops the counts of services that were left long ago.
func (c *counts) forget(now []spec.ProbeTarget, at time.Time) {
	probed := make(map[[2]string]bool, c.Len())
	for i := range now {
		probed[[2]string{now[i].Project, now[i].Service}] = true
	}
	c.Forget(func(k countKey) bool { return probed[[2]string{k.project, k.service}] }, at)
}

// Counts says what probes have found so far, sorted by project, service and kind.
func (m *Monitor) Counts() []spec.ProbeCount {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.SortedFunc(m.counts.All(), func(a, b spec.ProbeCount) int {
		return cmp.Or(cmp.Compare(a.Project, b.Project), cmp.Compare(a.Service, b.Service), cmp.Compare(a.Kind, b.Kind))
	})
}
