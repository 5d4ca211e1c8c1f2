package orchestrator

import (
	"fmt"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// toldOOM is how many of a run's processes were told of as killed for want of memory.
type toldOOM struct {
	of    int // the replica's process
	kills int
}

// tellOOM tells of processes that the kernel has killed for want of memory in replicas
// that go on. Those of before this agent an earlier one has told of.
func (l *Loop) tellOOM(rs []plan.Replica) {
	now := map[string]toldOOM{}
	for i := range rs {
		r := &rs[i]
		if r.Pid == 0 {
			continue
		}
		told, known := l.oom[r.ID]
		if told.of != r.Pid {
			told = toldOOM{of: r.Pid}
			if !known && r.StartedAt.Before(l.began) {
				told.kills = r.OOMKills
			}
		}
		if more := r.OOMKills - told.kills; more > 0 {
			told.kills = r.OOMKills
			text := fmt.Sprintf("%s goes on, but the kernel has killed %s of it for want of memory; `dunnage stats -p %s` shows what it uses and may use, and a higher memory limit is set without a restart",
				r.ID, processes(more), r.Project)
			l.cfg.Log.Warn("out of memory", "replica", r.ID, "processes", more)
			l.events.add(spec.Event{Kind: spec.EventOOM, Project: r.Project, Service: r.Service, Replica: r.ID, Message: text})
		}
		now[r.ID] = told
	}
	l.oom = now
}

func processes(n int) string {
	if n == 1 {
		return "a process"
	}
	return fmt.Sprintf("%d processes", n)
}
