package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

const (
	// blindTime is what the engine gets to answer once it hasn't: the rules are
	// looked after meanwhile, and a look that waits for it holds that up.
	blindTime = time.Second
	// fullEvery is how many of those looks there are to one that waits in full,
	// for an engine that is slow and not dead.
	fullEvery = 5
	// readPatience is how long a reader waits for the first look: what is known
	// without it is better than no answer within a second.
	readPatience = 500 * time.Millisecond
)

// errMute is one text for every look that the engine doesn't answer, however long
// it was waited for: it is told of once.
var errMute = errors.New("containerd doesn't answer; " + serveOn + "; `ps -C containerd -o pid,stat,args` shows whether it runs (" + spec.ProcessStates + ")")

// errUnanswered is what a change failed of: the engine may answer again by the time that
// somebody reads it.
var errUnanswered = errors.New("containerd didn't answer in time")

// errRestarting is what is said instead while the agent itself restarts it.
var errRestarting = errors.New("the agent is restarting containerd, which didn't answer; " + serveOn + "; wait for `dunnage events` to say that it is over")

// instances asks the engine for its containers.
func (l *Loop) instances(ctx context.Context) ([]spec.Instance, error) {
	if l.blind.Load()%fullEvery != 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, blindTime)
		defer cancel()
	}
	began := l.cfg.Clock.Now()
	found, err := l.cfg.Engine.Instances(ctx)
	if err == nil {
		l.blind.Store(0)
		l.guard.answered(began)
		return found, nil
	}
	l.blind.Add(1)
	l.guard.suspect()
	if l.guard.restarts(l.cfg.Clock.Now()) {
		return nil, errRestarting
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
		return nil, errMute
	}
	return nil, fmt.Errorf("look at containers: %w", err)
}

// EngineAnswers reports whether the engine answered the last look.
func (l *Loop) EngineAnswers() bool { return l.blind.Load() == 0 }

// unserved says of a change that the engine was needed for, before anything was
// recorded, that it came to nothing where the engine didn't answer.
func unserved(err error) error {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		err = errUnanswered
	case !errors.Is(err, spec.ErrUnavailable):
		return err
	}
	return errors.Join(fmt.Errorf("%w; nothing was changed: do it again once `dunnage doctor` finds that containerd answers", err), spec.ErrUnavailable)
}

// fromStore is the status before the first look: replicas as the store has
// them, with what the kernel says of their processes and rules.
func (l *Loop) fromStore(ctx context.Context) spec.Status {
	ctx, cancel := context.WithTimeout(ctx, readPatience)
	defer cancel()
	seen := look{}
	// What the kernel can't say in time isn't shown.
	seen.named, _, _ = l.cfg.Network.Routed(ctx, spec.Routing{})
	o := plan.Observed{Now: l.cfg.Clock.Now(), Held: true} // nothing is done about it
	for _, rec := range l.state.replicaRecords() {
		r := plan.Replica{ReplicaKey: rec.ReplicaKey, Recorded: true, Record: rec, Exists: true, Attached: true, Phase: spec.PhaseExited}
		switch {
		case l.cfg.Engine.Runs(rec.ID):
			r.Phase = spec.PhaseRunning
		case rec.Exit == nil && !rec.Running:
			r.Phase = spec.PhaseCreated
		case rec.Exit != nil:
			r.ExitCode, r.ExitedAt = rec.Exit.Code, rec.Exit.At
		}
		r.Named = seen.names(rec)
		o.Replicas = append(o.Replicas, r)
	}
	problems := l.status.Load().Problems
	why := "no look has ended yet; ask again in a moment"
	if len(problems) > 0 {
		why = strings.Join(problems, "; ")
	}
	return spec.Status{
		At: o.Now, Started: l.began, Projects: plan.Make(l.state.desired(), o).Status,
		Problems: []string{fmt.Sprintf("this is what the store and the kernel say: the agent started %s ago, and %s",
			o.Now.Sub(l.began).Round(time.Second), why)},
	}
}

// snapshot is what was published last. Before the first look it waits for that a
// moment, then shows what else is known.
func (l *Loop) snapshot(ctx context.Context) (spec.Status, error) {
	patience, cancel := context.WithTimeout(ctx, readPatience)
	defer cancel()
	err := l.awaitLook(patience)
	switch {
	case err == nil:
		return *l.status.Load(), nil
	case ctx.Err() != nil, l.ctx.Err() != nil:
		return spec.Status{}, err
	}
	return l.fromStore(ctx), nil
}
