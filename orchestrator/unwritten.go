package orchestrator

import (
	"cmp"
	"fmt"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// tellUnwritten tells once of each process whose log writer is gone, which can't come
// back while the process lives, and of each writer that is stopped or stuck.
func (l *Loop) tellUnwritten(rs []plan.Replica) {
	now := map[string]int{}
	for _, r := range rs {
		text := plan.Unwritten(&r, fmt.Sprintf("dunnage restart -p %s %s", r.Project, spec.ShortReplica(r.Service, r.ID)))
		if text == "" {
			continue
		}
		now[r.ID] = cmp.Or(r.StoppedWriter, r.StuckWriter, r.Pid)
		if l.unwritten[r.ID] == now[r.ID] {
			continue
		}
		text = r.ID + ": " + text
		l.cfg.Log.Warn("log writer", "replica", r.ID, "problem", text)
		l.events.add(spec.Event{Kind: spec.EventProblem, Project: r.Project, Service: r.Service, Replica: r.ID, Message: text})
	}
	l.unwritten = now
}
