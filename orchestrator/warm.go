package orchestrator

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
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
		out = append(out, spec.WarmService{Service: s.Name, Generation: before, Replicas: old.Replicas, Release: prev.Number, Until: now.Add(s.KeepWarm.Std())})
	}
	return out
}

// tellWarm tells what of rec wasn't warm before, and those who wait for the release
// what it takes.
func (l *Loop) tellWarm(rec spec.ProjectRecord, before []spec.WarmService, status []spec.ProjectStatus) {
	for _, w := range rec.Warm {
		if slices.Contains(before, w) {
			continue
		}
		n := countWarm(status, rec.Name, w.Service, w.Generation)
		stay := fmt.Sprintf("%s of release %d %s warm", counted(n, "replica"), w.Release, verb(n, "stays", "stay"))
		l.events.add(spec.Event{
			Kind: spec.EventRelease, Project: rec.Name, Service: w.Service,
			Message: fmt.Sprintf("%s until %s UTC: until then `dunnage rollback -p %s %d` is one swap", stay, w.Until.UTC().Format(time.TimeOnly), rec.Name, w.Release),
		})
		text := fmt.Sprintf("%s: %s for %s, so that a rollback to it is one swap; until then %s, beside the new ones, and %s memory",
			w.Service, stay, w.Until.Sub(l.cfg.Clock.Now()).Round(time.Second), verb(n, "it runs on", "they run on"), verb(n, "takes", "take"))
		release, _ := l.state.release(rec.Name, w.Release)
		if old, _ := release.Project.Service(w.Service); old.Limits.Memory > 0 {
			text += fmt.Sprintf(", up to %d MiB", old.Limits.Memory*int64(n)>>20)
		}
		for _, op := range l.rollouts(rec.Name) {
			l.ops.change(op, func(o *operation) { o.Warnings = append(o.Warnings, text) })
		}
	}
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

// keptWarm says what is kept warm of the service once next has converged, and what
// that costs: of the release that converged last, whatever was tried since, as far
// as it runs. Empty = nothing.
func (l *Loop) keptWarm(next spec.Release, service string) string {
	rec, _ := l.state.project(next.Project.Name)
	good, had := l.state.release(rec.Name, rec.Good)
	if !had || rec.Down || !plan.KeepsWarm(good, next, service) || good.Generation(service) == next.Generation(service) {
		return ""
	}
	n := countIn(l.status.Load().Projects, rec.Name, service, good.Generation(service), spec.StateStarting, spec.StateReady, spec.StateUnreachable, spec.StateWarm)
	s, _ := next.Project.Service(service)
	if n == 0 || s.Replicas == 0 {
		return ""
	}
	old, _ := good.Project.Service(service)
	cost := "its memory is in use twice"
	if old.Limits.Memory > 0 {
		cost = fmt.Sprintf("up to %d MiB of memory more", old.Limits.Memory*int64(n)>>20)
	}
	return fmt.Sprintf("%d of the old version %s for %s, for a rollback at once: %s", n, verb(n, "stays", "stay"), s.KeepWarm, cost)
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

// endHung ends what is warm of a release that is to take over and doesn't answer
// any more: its last probe may be seconds ago, and nothing else asks it. The
// returned records are to be saved: the end is none of the release's own.
func (l *Loop) endHung(project string, target spec.Release) (ended []spec.ReplicaRecord, notes []string) {
	var warm []string
	for _, p := range l.status.Load().Projects {
		for _, s := range p.Services {
			for _, r := range s.Replicas {
				if p.Name == project && r.State == spec.StateWarm && r.Generation == target.Generation(s.Name) {
					warm = append(warm, r.Replica)
				}
			}
		}
	}
	ctx, cancel := context.WithTimeout(l.ctx, blindTime) // the loop waits for it
	defer cancel()
	hung := l.cfg.Health.Assure(ctx, warm)
	for _, id := range slices.Sorted(maps.Keys(hung)) {
		rec, ok := l.state.replica(id)
		if !ok {
			continue
		}
		note := fmt.Sprintf("%s-%d of release %d was warm, but doesn't answer (%s)", rec.Service, rec.Number, target.Number, hung[id])
		if err := l.kill(ctx, id); err != nil {
			notes = append(notes, note+", and to end it failed: "+plain(err))
			continue
		}
		notes = append(notes, note+": it was ended and starts again")
		rec.Running, rec.Exit = false, &spec.Exit{At: l.cfg.Clock.Now(), Code: 128 + int(syscall.SIGKILL), Lost: true}
		ended = append(ended, rec)
	}
	return ended, notes
}

// kill ends a replica's process at once and waits until it is gone.
func (l *Loop) kill(ctx context.Context, id string) error {
	if err := gone(l.cfg.Engine.Signal(ctx, id, "KILL")); err != nil {
		return err
	}
	for l.cfg.Engine.Runs(id) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
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
			gaps = append(gaps, gap(p, s, starts[ch.Name], ""))
		}
	}
	if len(creates) == 0 {
		return nil
	}
	first := fmt.Sprintf("release %d doesn't run any more: the rollback creates %s; their images are on this host", target.Number, strings.Join(creates, ", "))
	return append([]string{first}, slices.DeleteFunc(gaps, func(text string) bool { return text == "" })...)
}
