package orchestrator

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"dunnage/orchestrator/world"
	"dunnage/spec"
)

// unwritable is a network whose rules can't be changed.
type unwritable struct {
	*world.World
	why string
}

func (u *unwritable) Apply(context.Context, spec.Routing) error { return errors.New(u.why) }

func (u *unwritable) Routed(ctx context.Context, r spec.Routing) (named []netip.Addr, equal bool, err error) {
	named, _, err = u.World.Routed(ctx, r)
	return named, false, err
}

// What fails again and again for the same reason is told once.
func TestRepeatedFailureIsToldOnce(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	var log bytes.Buffer
	s.loop.cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	network := &unwritable{World: s.w}
	s.loop.cfg.Network = network
	for i, why := range []string{"the disk is full", "the disk is gone"} {
		network.why = why
		for range 5 {
			s.loop.Step(t.Context())
		}
		if got := strings.Count(log.String(), "action failed"); got != i+1 || !strings.Contains(log.String(), why) {
			t.Errorf("told %d times:\n%s", got, log.String())
		}
	}
}
