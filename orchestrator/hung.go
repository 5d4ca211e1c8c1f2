package orchestrator

import (
	"fmt"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// tellHung tells once of each shim that hangs, and of one that answers again.
func (l *Loop) tellHung(rs []plan.Replica) {
	now := map[string]int{}
	for _, r := range rs {
		before := l.hung[r.ID]
		text := ""
		switch {
		case r.Hung != 0 && r.Hung != before:
			text = fmt.Sprintf("%s: its shim (process %d) doesn't answer containerd; it serves on, and is replaced alone by `dunnage restart -p %s %s`", r.ID, r.Hung, r.Project, spec.ShortReplica(r.Service, r.ID))
		case r.Hung == 0 && before != 0 && r.Alive():
			text = fmt.Sprintf("%s: its shim (process %d) answers again", r.ID, before)
		}
		if text != "" {
			l.cfg.Log.Warn("shim", "replica", r.ID, "problem", text)
			l.events.add(spec.Event{Kind: spec.EventProblem, Project: r.Project, Service: r.Service, Replica: r.ID, Message: text})
		}
		if r.Hung != 0 {
			now[r.ID] = r.Hung
		}
	}
	l.hung = now
}
