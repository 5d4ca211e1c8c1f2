package orchestrator

import (
	"context"
	"fmt"
	"time"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// Times of measuring writable layers.
const (
	// weighEvery is the pause between two measurements: a disk that takes
	// 100 MB/s gets 1 GB in it. Disk bounds what they cost.
	weighEvery = 10 * time.Second
	// weighTimeout bounds one, of a layer with millions of files.
	weighTimeout = 5 * time.Minute
	// weighWait is how long the loop waits for one: most are done at once.
	weighWait = 20 * time.Millisecond
)

// layers is what the replicas' writable layers have, as measured last. Run's
// goroutine owns it.
type layers struct {
	due     time.Time
	done    chan map[string]weight // nil = none is under way
	weights map[string]weight      // by replica
}

// weight is the size of a layer in one run of its replica.
type weight struct {
	run   time.Time // when the process started
	bytes int64
}

// of is what the replica's layer has, 0 = not known of this run.
func (w *layers) of(r *plan.Replica) int64 {
	if got, ok := w.weights[r.ID]; ok && got.run.Equal(r.StartedAt) {
		return got.bytes
	}
	return 0
}

// weigh measures the layers now and then, if a service bounds them. What it
// finds is seen by the next look.
func (l *Loop) weigh(o plan.Observed) {
	w := &l.layers
	if l.cfg.Disk == nil {
		return
	}
	if now := l.cfg.Clock.Now(); w.done == nil {
		bounds := l.bounds()
		if len(bounds) == 0 || now.Before(w.due) {
			return
		}
		w.due = now.Add(weighEvery)
		runs := map[string]time.Time{}
		for i := range o.Replicas {
			if r := &o.Replicas[i]; r.Phase == spec.PhaseRunning && bounds[[2]string{r.Project, r.Service}] > 0 {
				runs[r.ID] = r.StartedAt
			}
		}
		done := make(chan map[string]weight, 1)
		w.done = done
		l.jobs.Go(func() { done <- l.measure(runs) })
	}
	select {
	case got := <-w.done:
		w.done = nil
		if got != nil {
			l.tellOutgrown(got, o)
			w.weights = got
			l.Look()
		}
	case <-time.After(weighWait):
	}
}

// bounds are the limits of the desired services that have one.
func (l *Loop) bounds() map[[2]string]int64 {
	out := map[[2]string]int64{}
	for _, p := range l.state.desired().Projects {
		for _, s := range p.Release.Project.Services {
			if s.Disk > 0 {
				out[[2]string{p.Record.Name, s.Name}] = s.Disk
			}
		}
	}
	return out
}

// measure asks for the layers of these runs; nil = it isn't known.
func (l *Loop) measure(runs map[string]time.Time) map[string]weight {
	ctx, cancel := context.WithTimeout(l.ctx, weighTimeout)
	defer cancel()
	items, err := l.cfg.Disk.Use(ctx)
	if err != nil && l.ctx.Err() == nil {
		l.cfg.Log.Warn("measure writable layers", "error", err)
	}
	if len(items) == 0 {
		return nil
	}
	out := map[string]weight{}
	for _, i := range items {
		if run, ok := runs[i.Name]; ok && i.Kind == spec.DiskWritable {
			out[i.Name] = weight{run, i.Bytes}
		}
	}
	return out
}

// tellOutgrown tells once of each run whose layer is over its limit.
func (l *Loop) tellOutgrown(now map[string]weight, o plan.Observed) {
	bounds := l.bounds()
	for i := range o.Replicas {
		r := &o.Replicas[i]
		bound := bounds[[2]string{r.Project, r.Service}]
		before := l.layers.weights[r.ID]
		got, ok := now[r.ID]
		if told := before.run.Equal(got.run) && before.bytes > bound; !ok || bound == 0 || got.bytes <= bound || told {
			continue
		}
		text := fmt.Sprintf("%s has written %s over its image, and x-dunnage.disk is %s", r.ID, spec.Bytes(got.bytes), spec.Bytes(bound))
		l.cfg.Log.Warn("writable layer over its limit", "replica", r.ID, "bytes", got.bytes, "limit", bound)
		l.events.add(spec.Event{Kind: spec.EventProblem, Project: r.Project, Service: r.Service, Replica: r.ID, Message: text})
	}
}

// exchange removes the replica's container with its writable layer. The mark that
// asks for it goes last: after a crash in between it is done once more, and
// nothing was started meanwhile.
func (l *Loop) exchange(ctx context.Context, a plan.Renew) error {
	if err := gone(l.cfg.Engine.Remove(ctx, a.Key.ID)); err != nil {
		return err
	}
	return l.update(a.Key.ID, func(r *spec.ReplicaRecord) { r.Outgrown = 0 })
}
