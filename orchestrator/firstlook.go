package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"dunnage/spec"
)

// firstLook is how long a reader waits for the first look after a start.
const firstLook = 2 * lookTimeout

// hasLooked reports whether there is a snapshot.
func (l *Loop) hasLooked() bool {
	select {
	case <-l.looked:
		return true
	default:
		return false
	}
}

// awaitLook waits for the first look, but not for ever.
func (l *Loop) awaitLook(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, firstLook)
	defer cancel()
	began := time.Now()
	select {
	case <-l.looked:
		return nil
	case <-ctx.Done():
	case <-l.ctx.Done():
	}
	return l.unanswered(ctx, time.Since(began))
}

// unanswered says why there is no answer for ctx, which ended after so long.
func (l *Loop) unanswered(ctx context.Context, waited time.Duration) error {
	waited = waited.Round(time.Millisecond)
	switch {
	case l.ctx.Err() != nil:
		return fmt.Errorf("the agent is stopping: %w", spec.ErrUnavailable)
	case !errors.Is(ctx.Err(), context.DeadlineExceeded): // nobody waits any more
		return context.Cause(ctx)
	case !l.hasLooked():
		why := strings.Join(l.status.Load().Problems, "; ")
		if why == "" {
			why = fmt.Sprintf("no look has ended within %s", waited)
		}
		return fmt.Errorf("the agent hasn't looked yet: %s: %w", why, spec.ErrUnavailable)
	default:
		return fmt.Errorf("the agent is busy: no answer within %s: %w", waited, spec.ErrUnavailable)
	}
}
