package orchestrator

import (
	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// toldWriter is what was told of the log writer of a replica's process.
type toldWriter struct {
	of int // the replica's process
	spec.LogWriter
}

// tellUnwritten tells once of each trouble with the log writer of a process.
func (l *Loop) tellUnwritten(rs []plan.Replica) {
	now := map[string]toldWriter{}
	for _, r := range rs {
		text := plan.Unwritten(&r)
		if text == "" {
			continue
		}
		now[r.ID] = toldWriter{r.Pid, r.LogWriter}
		if l.unwritten[r.ID] == now[r.ID] {
			continue
		}
		text = r.ID + ": " + text
		l.cfg.Log.Warn("log writer", "replica", r.ID, "problem", text)
		l.events.add(spec.Event{Kind: spec.EventProblem, Project: r.Project, Service: r.Service, Replica: r.ID, Message: text})
	}
	l.unwritten = now
}
