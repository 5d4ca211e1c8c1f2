package orchestrator

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// warmed is what stays warm now that the desired release has converged: what it
// replaced, as far as that still runs, and of services that it left alone what
// was warm before. After a rollback nothing is warm of what was left: who goes
// back wants it gone.
func (l *Loop) warmed(rec spec.ProjectRecord, status []spec.ProjectStatus) []spec.WarmService {
	next, _ := l.state.release(rec.Name, rec.Desired)
	prev, had := l.state.release(rec.Name, rec.Good)
	now := l.cfg.Clock.Now()
	var out []spec.WarmService
	for _, s := range next.Project.Services {
		gen, before := next.Generation(s.Name), prev.Generation(s.Name)
		if !had {
			continue
		}
		if gen == before {
			if w, ok := rec.WarmOf(s.Name); ok && w.Generation != gen && now.Before(w.Until) {
				out = append(out, w)
			}
			continue
		}
		n := countWarm(status, rec.Name, s.Name, before)
		if n == 0 || rec.Backward || !plan.KeepsWarm(prev, next, s.Name) {
			continue
		}
		old, _ := prev.Project.Service(s.Name)
		w := spec.WarmService{Service: s.Name, Generation: before, Replicas: old.Replicas, Release: prev.Number, Until: now.Add(s.KeepWarm.Std())}
		out = append(out, w)
		l.events.add(spec.Event{
			Kind: spec.EventRelease, Project: rec.Name, Service: s.Name,
			Message: fmt.Sprintf("%s of release %d %s warm until %s UTC: until then `dunnage rollback %d` is one swap", counted(n, "replica"), prev.Number, verb(n, "stays", "stay"), w.Until.UTC().Format(time.TimeOnly), prev.Number),
		})
	}
	return out
}

func verb(n int, one, more string) string {
	if n == 1 {
		return one
	}
	return more
}

// countWarm counts the replicas of a generation that are warm.
func countWarm(status []spec.ProjectStatus, project, service, generation string) int {
	return countIn(status, project, service, generation, spec.StateWarm)
}

// countIn counts the replicas of a generation that are in one of the states.
func countIn(status []spec.ProjectStatus, project, service, generation string, states ...spec.ReplicaState) int {
	n := 0
	for _, p := range status {
		for _, s := range p.Services {
			for _, r := range s.Replicas {
				if p.Name == project && s.Name == service && r.Generation == generation && slices.Contains(states, r.State) {
					n++
				}
			}
		}
	}
	return n
}

// warmNotes says what it takes that the release keeps replicas warm.
func (l *Loop) warmNotes(prev *spec.Release, c candidate) []string {
	var notes []string
	for _, ch := range c.changes {
		if prev == nil || ch.Change != spec.ChangeReplace || !plan.KeepsWarm(*prev, c.release, ch.Name) {
			continue
		}
		old, _ := prev.Project.Service(ch.Name)
		s, _ := c.release.Project.Service(ch.Name)
		if old.Replicas == 0 || slices.Contains(c.starts, ch.Name) {
			continue
		}
		text := fmt.Sprintf("%s: %s of release %d %s warm for %s, so that a rollback to it is one swap; until then %s, beside the new ones, and %s memory",
			ch.Name, counted(old.Replicas, "replica"), prev.Number, verb(old.Replicas, "stays", "stay"), s.KeepWarm, verb(old.Replicas, "it runs on", "they run on"), verb(old.Replicas, "takes", "take"))
		if m := old.Limits.Memory; m > 0 {
			text += fmt.Sprintf(", up to %d MiB", m*int64(old.Replicas)>>20)
		}
		notes = append(notes, text)
	}
	for _, ch := range c.changes {
		if text := l.thirdNote(c.release, ch.Name, ch.Change); text != "" {
			notes = append(notes, ch.Name+": "+text)
		}
	}
	return notes
}

// thirdNote says of a service that is replaced what runs beside the old and the
// new replicas until the release has converged; empty = nothing.
func (l *Loop) thirdNote(next spec.Release, service string, change spec.Change) string {
	rec, _ := l.state.project(next.Project.Name)
	w, _ := rec.WarmOf(service)
	n := countWarm(l.status.Load().Projects, rec.Name, service, w.Generation)
	s, _ := next.Project.Service(service)
	if n == 0 || change != spec.ChangeReplace || w.Generation == next.Generation(service) || next.Project.NotWarm(s) != "" {
		return ""
	}
	text := fmt.Sprintf("%s of release %d, which %s warm, %s until this release has converged, should it fail", counted(n, "replica"), w.Release, verb(n, "is", "are"), verb(n, "stays", "stay"))
	before, _ := l.state.release(rec.Name, w.Release)
	if old, _ := before.Project.Service(service); old.Limits.Memory > 0 {
		text += fmt.Sprintf(": up to %d MiB of memory more", old.Limits.Memory*int64(n)>>20)
	}
	return text
}

// coldNotes says of a rollback what it takes more than a swap: which replicas it
// has to create, and who is down meanwhile; none where all of the target still runs.
func (l *Loop) coldNotes(rec spec.ProjectRecord, prev *spec.Release, target spec.Release) []string {
	status := l.status.Load().Projects
	var creates, gaps []string
	var starts map[string]time.Duration
	for _, ch := range compare(prev, target) {
		s, stays := target.Project.Service(ch.Name)
		n := s.Replicas - countIn(status, rec.Name, ch.Name, target.Generation(ch.Name), spec.StateWarm, spec.StateReady, spec.StateDraining)
		if !moves(ch) || !stays || n <= 0 || slices.Contains(rec.Stopped, ch.Name) {
			continue
		}
		if starts == nil {
			starts = l.lastStarts(l.ctx, rec.Name)
		}
		text := fmt.Sprintf("%s of %s", counted(n, "replica"), ch.Name)
		if took := starts[ch.Name]; took > 0 {
			text += fmt.Sprintf(" (its last start took %s)", took.Round(100*time.Millisecond))
		}
		creates = append(creates, text)
		if s.Rollback != nil {
			s.Update = *s.Rollback
		}
		p := spec.ServicePreview{Name: ch.Name, Change: ch.Change, Order: s.Update.Order, To: s.Replicas}
		if prev != nil {
			old, _ := prev.Project.Service(ch.Name)
			p.From = old.Replicas
		}
		if p.Order == spec.StopFirst {
			gaps = append(gaps, gap(p, s, starts[ch.Name]))
		}
	}
	if len(creates) == 0 {
		return nil
	}
	first := fmt.Sprintf("release %d doesn't run any more: the rollback creates %s; their images are on this host", target.Number, strings.Join(creates, ", "))
	return append([]string{first}, slices.DeleteFunc(gaps, func(text string) bool { return text == "" })...)
}
