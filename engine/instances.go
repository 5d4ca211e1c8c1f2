package engine

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/core/containers"

	"dunnage/spec"
)

// Instances lists every container that dunnage owns, sorted by ID.
func (e *Engine) Instances(ctx context.Context) ([]spec.Instance, error) {
	e.inventory.asking.Lock()
	defer e.inventory.asking.Unlock()
	if err := e.takeStock(ctx); err != nil {
		e.inventory.touch("")
		return nil, err
	}
	stock := e.inventory.stock()
	out := make([]spec.Instance, 0, len(stock))
	for _, s := range stock {
		out = append(out, e.instance(s))
	}
	e.markUnwritten(out)
	return out, nil
}

// Runs reports whether the kernel knows a process of the container.
func (e *Engine) Runs(id string) bool { return len(e.cgroup.pids(id)) > 0 }

// instance joins what containerd says with what the kernel and the start
// record say.
func (e *Engine) instance(s stocked) spec.Instance {
	c, t := *s.container, s.task
	i := spec.Instance{ReplicaKey: keyOf(c), Image: c.Image, Limits: c.Labels[labelLimits]}
	if !s.silent.IsZero() {
		return e.quiet(i, s)
	}
	switch t.GetStatus() {
	case task.Status_CREATED:
		i.Phase = spec.PhaseCreated
	case task.Status_RUNNING:
		i.Phase, i.Pid = spec.PhaseRunning, int(t.Pid)
	case task.Status_PAUSED, task.Status_PAUSING:
		i.Phase, i.Pid = spec.PhasePaused, int(t.Pid)
	case task.Status_STOPPED:
		i.Phase, i.ExitCode, i.ExitedAt = spec.PhaseExited, int(t.ExitStatus), t.ExitedAt.AsTime()
		i.OOM = e.oom.ended(c.ID, int(t.Pid), e.cgroup.oomKills(c.ID), i.ExitedAt)
	default: // no task, or one whose shim doesn't answer
		return e.unowned(i)
	}
	if i.Phase != spec.PhaseCreated {
		i.StartedAt = e.startedAt(c.ID, int(t.Pid))
	}
	if i.Pid != 0 {
		i.OOMKills = int(e.oom.running(c.ID, i.Pid, e.cgroup.oomKills(c.ID), i.StartedAt.Before(e.opened), time.Now()))
	}
	return i
}

// unowned completes an instance that containerd has no task of.
func (e *Engine) unowned(i spec.Instance) spec.Instance {
	record, started := e.started.get(i.ID)
	i.StartedAt = record.Started
	// Start clears runc's own process away, so it hides no earlier run.
	if pids := slices.DeleteFunc(e.cgroup.pids(i.ID), isRuncInit); len(pids) > 0 {
		i.Phase, i.Pid = spec.PhaseLost, record.Pid
		if !slices.Contains(pids, record.Pid) {
			i.Pid = pids[0]
		}
		e.watchLost(i.ID, i.Pid)
		return i
	}
	if !started {
		i.Phase = spec.PhaseCreated
		return i
	}
	if record.Exited.IsZero() {
		record.Exited = time.Now()
		// Failing to keep it costs only a later exit time.
		_ = e.started.put(i.ID, record)
	}
	i.Phase, i.ExitCode, i.ExitedAt = spec.PhaseExited, unknownExit, record.Exited
	return i
}

// unknownExit stands for an exit code that died with its shim, as in containerd.
const unknownExit = 255

// startedAt is when the task's process started: from the record, or, after a
// crash between the start and its record, from the kernel.
func (e *Engine) startedAt(id string, pid int) time.Time {
	if at, ok := e.started.since(id, pid); ok {
		return at
	}
	if r, ok := e.started.get(id); ok && r.Pid == pid {
		e.started.found(id, r)
		return r.Started
	}
	at, ok := processStart(pid)
	if !ok {
		return time.Time{}
	}
	// Failing to keep it means asking the kernel again next time.
	_ = e.started.put(id, startRecord{Pid: pid, Started: at})
	return at
}

// Labels of our containers.
const (
	labelProject    = "dunnage/project"
	labelService    = "dunnage/service"
	labelGeneration = "dunnage/generation"
	labelNumber     = "dunnage/number"
	labelLimits     = "dunnage/limits" // the fingerprint; not part of the key

	ownedFilter = `labels."` + labelProject + `"`
)

func labelsOf(k spec.ReplicaKey) map[string]string {
	return map[string]string{
		labelProject:    k.Project,
		labelService:    k.Service,
		labelGeneration: k.Generation,
		labelNumber:     strconv.Itoa(k.Number),
	}
}

func keyOf(c containers.Container) spec.ReplicaKey {
	n, err := strconv.Atoi(c.Labels[labelNumber])
	if err != nil { // edited by hand: number 0 is no wanted replica, so it goes
		n = 0
	}
	return spec.ReplicaKey{
		ID:         c.ID,
		Project:    c.Labels[labelProject],
		Service:    c.Labels[labelService],
		Generation: c.Labels[labelGeneration],
		Number:     n,
	}
}
