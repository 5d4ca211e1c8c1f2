package orchestrator

import (
	"fmt"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// tellUnwritten tells once of each process whose log writer is gone, which can't come
// back while the process lives, and of each writer that is stopped.
func (l *Loop) tellUnwritten(rs []plan.Replica) {
	now := map[string]int{}
	for _, r := range rs {
		pid := r.Pid
		if r.StoppedWriter != 0 {
			pid = r.StoppedWriter
		}
		if !r.Unwritten && r.StoppedWriter == 0 {
			continue
		}
		now[r.ID] = pid
		if l.unwritten[r.ID] == pid {
			continue
		}
		text := fmt.Sprintf("%s: its log writer is gone: what it prints is lost; it serves on, and `dunnage restart -p %s %s` gives it another one", r.ID, r.Project, spec.ShortReplica(r.Service, r.ID))
		if r.StoppedWriter != 0 {
			text = fmt.Sprintf("%s: its log writer (process %d) is stopped: it will block in its next line once 64 KiB wait; `kill -CONT %d` lets the writer go on", r.ID, pid, pid)
		}
		l.cfg.Log.Warn("log writer", "replica", r.ID, "problem", text)
		l.events.add(spec.Event{Kind: spec.EventProblem, Project: r.Project, Service: r.Service, Replica: r.ID, Message: text})
	}
	l.unwritten = now
}
