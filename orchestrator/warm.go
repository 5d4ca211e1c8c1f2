package orchestrator

import (
	"fmt"
	"slices"
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
	n := 0
	for _, p := range status {
		for _, s := range p.Services {
			for _, r := range s.Replicas {
				if p.Name == project && s.Name == service && r.Generation == generation && r.State == spec.StateWarm {
					n++
				}
			}
		}
	}
	return n
}

// stillWarm is what stays warm while the release comes in: nothing of services
// that it replaces, or three generations would run.
func (l *Loop) stillWarm(rec spec.ProjectRecord, next spec.Release) []spec.WarmService {
	good, _ := l.state.release(rec.Name, rec.Good)
	return slices.DeleteFunc(slices.Clone(rec.Warm), func(w spec.WarmService) bool {
		_, stays := next.Project.Service(w.Service)
		return !stays || next.Generation(w.Service) != good.Generation(w.Service)
	})
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
		rec, _ := l.state.project(c.release.Project.Name)
		if w, ok := rec.WarmOf(ch.Name); ok && l.cfg.Clock.Now().Before(w.Until) {
			text += fmt.Sprintf("; what is warm of release %d now goes first", w.Release)
		}
		notes = append(notes, text)
	}
	return notes
}
