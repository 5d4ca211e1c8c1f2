package orchestrator

import (
	"time"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// illBefore is how long before a rollout a failed visit says that it isn't the
// release's fault when others fail: three idle visits, and short enough that who
// tries again after a release that failed is judged again.
const illBefore = 15 * time.Second

// visited tells the planner how the visits went since each release that has yet
// to prove itself became desired.
func (l *Loop) visited() map[string][]plan.Visited {
	out := map[string][]plan.Visited{}
	for _, name := range l.state.projectNames() {
		rec, _ := l.state.project(name)
		if rec.Down || rec.Good == 0 || rec.Desired == rec.Good {
			continue
		}
		earlier := map[string]spec.VisitTally{}
		for _, t := range l.cfg.Visits.Tally(name, rec.Since.Add(-illBefore)) {
			earlier[t.Key()] = t
		}
		for _, t := range l.cfg.Visits.Tally(name, rec.Since) {
			out[name] = append(out[name], plan.Visited{VisitTally: t, IllBefore: earlier[t.Key()].Failed > t.Failed})
		}
	}
	return out
}
