package orchestrator

import (
	"fmt"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// tellUnwritten tells once of each process whose log writer is gone. It can't come
// back while the process lives.
func (l *Loop) tellUnwritten(rs []plan.Replica) {
	now := map[string]int{}
	for _, r := range rs {
		if !r.Unwritten {
			continue
		}
		now[r.ID] = r.Pid
		if l.unwritten[r.ID] == r.Pid {
			continue
		}
		text := fmt.Sprintf("%s: its log writer is gone: what it prints is lost; it serves on, and `dunnage restart -p %s %s` gives it another one", r.ID, r.Project, spec.ShortReplica(r.Service, r.ID))
		l.cfg.Log.Warn("log writer", "replica", r.ID, "problem", text)
		l.events.add(spec.Event{Kind: spec.EventProblem, Project: r.Project, Service: r.Service, Replica: r.ID, Message: text})
	}
	l.unwritten = now
}
