package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"dunnage/spec"
)

// signals are what an exit code of 128 and a signal's number stands for: runc
// and shells give those. Left out are signals that end no program by themselves.
var signals = map[int]string{
	129: "SIGHUP", 130: "SIGINT", 131: "SIGQUIT", 132: "SIGILL", 133: "SIGTRAP", 134: "SIGABRT", 135: "SIGBUS", 136: "SIGFPE",
	137: "SIGKILL", 138: "SIGUSR1", 139: "SIGSEGV", 140: "SIGUSR2", 141: "SIGPIPE", 142: "SIGALRM", 143: "SIGTERM", 159: "SIGSYS",
}

// ExitText says how the replica's last run ended.
func ExitText(r spec.ReplicaRecord) string {
	if r.Exit == nil {
		return "exited"
	}
	text := fmt.Sprintf("exited with code %d", r.Exit.Code)
	if r.Exit.Disk > 0 {
		text = fmt.Sprintf("was stopped with %s in its writable layer", spec.Bytes(r.Exit.Disk))
	}
	switch name := signals[r.Exit.Code]; {
	case r.Exit.OOM:
		text += " (out of memory)"
	case name != "" && r.Exit.Disk == 0:
		text += " (" + name + ")"
	}
	if r.Failures > 1 {
		text += fmt.Sprintf(", %d times in a row", r.Failures)
	}
	return text
}

// describe tells people what is.
func describe(d Desired, all []*view, held map[string]Absence, o Observed) []spec.ProjectStatus {
	var out []spec.ProjectStatus
	for i := range d.Projects {
		p := &d.Projects[i]
		ps := spec.ProjectStatus{
			Name: p.Record.Name, Release: p.Release.Number,
			Rolling: p.Rolling(), Since: p.Record.Since, Paused: p.Record.Paused,
		}
		if slices.Contains(p.Record.Failed, p.Release.Number) {
			ps.Failed = cmp.Or(p.Record.Causes[p.Release.Number], "not known why")
		}
		for _, v := range all {
			if v.project == p {
				s := v.status(o)
				if a := held[v.path()]; a.Holds(o.Now) && len(v.Container.Networks) > 0 {
					s.HeldUntil = a.Until
				}
				ps.Services = append(ps.Services, s)
			}
		}
		out = append(out, ps)
	}
	return leftovers(out, o)
}

// leaving says what becomes of a service that isn't desired.
func leaving(o Observed) string {
	if o.Held {
		return "stays as it is while the agent holds"
	}
	return "is being removed"
}

// leftovers adds the replicas of services that aren't desired, until they are gone.
func leftovers(out []spec.ProjectStatus, o Observed) []spec.ProjectStatus {
	for k := range o.Replicas {
		r := &o.Replicas[k]
		if r.Project == "" {
			continue
		}
		i := slices.IndexFunc(out, func(p spec.ProjectStatus) bool { return p.Name == r.Project })
		if i < 0 {
			out = append(out, spec.ProjectStatus{Name: r.Project})
			i = len(out) - 1
		}
		p := &out[i]
		j := slices.IndexFunc(p.Services, func(s spec.ServiceStatus) bool { return s.Name == r.Service })
		if j >= 0 && slices.ContainsFunc(p.Services[j].Replicas, func(s spec.ReplicaStatus) bool { return s.Replica == r.ID }) {
			continue
		}
		if j < 0 {
			p.Services = append(p.Services, spec.ServiceStatus{Name: r.Service, Waiting: leaving(o)})
			j = len(p.Services) - 1
		}
		p.Services[j].Replicas = append(p.Services[j].Replicas, replicaStatus(r, false, o))
	}
	return out
}

func (v *view) status(o Observed) spec.ServiceStatus {
	s := spec.ServiceStatus{
		Name: v.Name, Generation: v.gen, Wanted: v.Replicas, Ready: v.ready(),
		Stopped: v.stopped, Orphan: v.Orphan, Ports: v.Ports, Waiting: v.why(), Tolerated: v.leftBehind(),
		Unreachable: v.unreachable(), Replicas: []spec.ReplicaStatus{},
	}
	if r := v.stuck(); r != nil {
		s.LeftDead = r.Service
	}
	if v.project.Rolling() && !v.spared() {
		s.Waiting = cmp.Or(s.Waiting, v.awaits(o.Committed))
		s.Tolerated = cmp.Or(s.Tolerated, v.leftUnreached())
	}
	s.Before = v.served()
	if v.update.canary {
		s.Trial = min(v.Canary.Replicas, v.Replicas)
	}
	backends := v.backends()
	shares := v.shares(backends, o.Now)
	for _, r := range v.current {
		st := replicaStatus(r, true, o)
		st.Share = shares[r.ID]
		st.Detail = cmp.Or(st.Detail, v.outgrew(r), v.emptied(r))
		st.Release, st.Labels = v.shownRelease(r, v.project.Release.Number), v.Container.Labels
		if r.Named {
			st.Ports = v.Ports
			st.State = deafIf(s.Unreachable != "", st.State)
		}
		if v.stopped && !r.Alive() {
			st.State = spec.StateStopped
		}
		s.Replicas = append(s.Replicas, st)
	}
	for _, r := range v.others {
		st := replicaStatus(r, v.kept(r, backends), o)
		st.Share = shares[r.ID]
		if r.Generation == v.goodGen {
			good, _ := v.project.Good.Project.Service(v.Name)
			st.Release, st.Labels = v.shownRelease(r, st.Release), good.Container.Labels
		}
		if r.Named {
			st.Ports = v.Ports
			st.State = deafIf(s.Unreachable != "", st.State)
		}
		if until, warm := v.warmUntil(r); warm && st.State == spec.StateDraining {
			st.State, st.WarmUntil = spec.StateWarm, until
			if w, _ := v.project.Record.WarmOf(v.Name); w.Generation == r.Generation {
				st.Release = w.Release
			}
		}
		s.Replicas = append(s.Replicas, st)
	}
	return s
}

// served is how many replicas clients have of the release to go back to, while
// the desired one has yet to prove itself. Of a job they have none.
func (v *view) served() int {
	job := len(v.Ports) == 0 && (v.Restart.Mode == spec.RestartNo || v.Restart.Mode == spec.RestartOnFailure)
	if job || !v.project.Rolling() || slices.Contains(v.project.Record.Held, v.Name) {
		return 0
	}
	return v.goodReplicas
}

// leftBehind says which failures the service has and may have; empty = none.
func (v *view) leftBehind() string {
	failures := v.failures()
	if v.stopped || len(failures) == 0 || v.ready() >= v.Replicas || !v.enough() {
		return ""
	}
	by := fmt.Sprintf("max_failure_ratio %g", v.policy().MaxFailureRatio)
	if v.policy().OnFailure == spec.FailureContinue {
		by = "failure_action continue"
	}
	return fmt.Sprintf("%d of %d failed, tolerated by %s: %s", len(failures), v.Replicas, by, failures[0].cause)
}

// shownRelease is the release that people see with a replica. One that the
// release to go back to wants shows that, until the desired one has converged.
func (v *view) shownRelease(r *Replica, otherwise int) int {
	if good := v.project.Good; good != nil && r.Generation == v.goodGen && r.Record.Release <= good.Number {
		return good.Number
	}
	return otherwise
}

// why says what keeps the service from being converged, in one line.
func (v *view) why() string {
	switch {
	case v.stopped:
		return ""
	case v.update.why != "" && v.project.Record.Paused != "" && v.owner == nil:
		return v.update.why + v.meanwhile()
	case v.update.why != "":
		return v.update.why
	case v.enough() && v.update.beside != "":
		return v.update.beside
	case v.enough() && !v.limited():
		return "new limits are being set"
	case v.enough() && !v.delivered():
		return "new secrets are being delivered"
	case v.enough():
		return ""
	case v.stuck() != v.awaitsDead: // else the dependency says it
		return v.stuck().ID + " " + leftDeadText(v.stuck())
	case v.waiting != "":
		return v.waiting
	}
	if causes := v.failures(); len(causes) > 0 {
		return causes[0].cause
	}
	text := fmt.Sprintf("%d of %d ready", v.ready(), v.Replicas)
	for _, r := range v.current {
		if !r.Usable() && !r.Done() {
			if d := detail(r); d != "" {
				return fmt.Sprintf("%s; %s: %s", text, r.ID, d)
			}
		}
	}
	return text
}

func replicaStatus(r *Replica, wanted bool, o Observed) spec.ReplicaStatus {
	unwritten := Unwritten(r)
	s := spec.ReplicaStatus{
		Project: r.Project, Service: r.Service, Replica: r.ID, Number: r.Number, Generation: r.Generation,
		Release: r.Record.Release, Image: r.Record.Image, State: state(r, wanted, o.Held), Health: checked(r), Pid: r.Pid,
		Addresses: Addresses(r.Record), Ports: []spec.Port{}, Routed: r.Named,
		Restarts: r.Record.Restarts, Started: r.StartedAt, Hung: r.Hung, Unwritten: unwritten != "", Detail: cmp.Or(detail(r), unwritten),
	}
	if e := r.Record.Exit; e != nil {
		s.ExitCode = &e.Code
		if s.State == spec.StateBackoff {
			s.RetryAt = startsAgainAt(r.Record)
			if r.begins() {
				s.RetryAt = retryAt(r)
			}
		}
		if s.State == spec.StateFailed {
			s.Detail = leftDeadText(r)
		}
	}
	return s
}

// checked is what probes say of a replica: nothing where they only see that its
// process runs, which is no health.
func checked(r *Replica) spec.Health {
	for _, p := range r.Record.Probes {
		if p.Kind != spec.ProbeRunning {
			return r.Health
		}
	}
	return spec.HealthUnknown
}

// detail is what a person at night wants to know of a replica that isn't well.
func detail(r *Replica) string {
	switch {
	case r.Hung != 0:
		return fmt.Sprintf("its shim (process %d) doesn't answer containerd; it serves on, and is replaced alone by `%s`", r.Hung, restart(r))
	case r.Errors > 0:
		return r.Error
	case r.Phase == spec.PhasePaused:
		return "somebody has paused its container; `ctr task resume` lets it go on"
	case r.Phase == spec.PhaseLost:
		return "its process lives, but its shim, which reports to containerd, is gone or doesn't answer"
	case r.Phase == spec.PhaseRunning:
		switch r.Health {
		case spec.HealthHealthy:
			return ""
		case spec.HealthUnhealthy:
			return r.Detail
		default:
			return strings.TrimPrefix(r.Detail+before(r.Record), "; ")
		}
	case r.Record.Exit != nil && !r.Record.Running && !r.Record.Requested && !r.Done():
		return ExitText(r.Record)
	default:
		return ""
	}
}

// Unwritten says that what a replica prints isn't written, and what to do; empty = it
// is. Where its writer is gone, nothing can write it any more but in another process, since the shim began the
// writer with it, and a service that serves is worth more than its log.
func Unwritten(r *Replica) string {
	const blocks = "it will block in its next line once 64 KiB wait"
	switch pid := r.LogWriter.Pid; r.LogWriter.Trouble {
	case spec.WriterGone:
		return fmt.Sprintf("its log writer is gone: what it prints is lost; it serves on, and `%s` gives it another one", restart(r))
	case spec.WriterStopped:
		return fmt.Sprintf("its log writer (process %d) is stopped: %s; `kill -CONT %d` lets the writer go on", pid, blocks, pid)
	case spec.WriterStuck:
		return fmt.Sprintf("its log writer (process %d) doesn't read what it prints: %s; `cat /proc/%d/stack` shows where the writer hangs, and `%s` gives it another one", pid, blocks, pid, restart(r))
	case spec.WriterFails:
		return fmt.Sprintf("its log writer (process %d) writes nothing of what it prints, which is lost; `dunnage doctor` looks at the log's disk", pid)
	}
	return ""
}

// restart is the command that replaces the replica's process and nothing else.
func restart(r *Replica) string {
	return fmt.Sprintf("dunnage restart -p %s %s", r.Project, spec.ShortReplica(r.Service, r.ID))
}

// before says of a replica that runs how its runs before failed in a row: one
// that is looked at between two exits would seem to be just starting.
func before(r spec.ReplicaRecord) string {
	if r.Failures == 0 || r.Exit == nil || r.Exit.Lost {
		return ""
	}
	return "; before: " + ExitText(r)
}

func state(r *Replica, wanted, held bool) spec.ReplicaState {
	switch {
	case r.Phase == spec.PhaseLost:
		return spec.StateLost
	case r.Phase == spec.PhaseRunning && !r.StoppingSince.IsZero():
		return spec.StateStopping
	case r.Phase == spec.PhaseRunning && !wanted && !r.Named && !held:
		return spec.StateDraining
	case r.Phase == spec.PhaseRunning && r.Usable():
		return spec.StateReady
	case r.Phase == spec.PhaseRunning && !wanted && held:
		return spec.StateHeld
	case r.Phase == spec.PhaseRunning && r.Health == spec.HealthUnhealthy, r.Phase == spec.PhasePaused:
		return spec.StateUnhealthy
	case r.Phase == spec.PhaseRunning:
		return spec.StateStarting
	case r.Done():
		return spec.StateCompleted
	case !wanted || r.Record.Requested:
		return spec.StateStopped
	case r.Record.Exit != nil && r.begins():
		return spec.StateBackoff
	case r.Record.Exit != nil && restarts(r.Record):
		return spec.StateBackoff
	case r.Record.Exit != nil:
		return spec.StateFailed
	default:
		return spec.StateCreated
	}
}
