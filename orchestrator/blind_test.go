package orchestrator

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"dunnage/orchestrator/world"
	"dunnage/spec"
)

// While the engine doesn't answer, a replica whose process is gone is shown as
// that and takes no connections that another one can take.
func TestTheDeadWhileTheEngineHangs(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	p := valid("shop", "fast")
	p.Services[0].Replicas = 2
	if op := ask(t, s, p); op.State != spec.OperationDone {
		t.Fatalf("%+v", op)
	}
	backends := func() int { return len(s.loop.applied.Services[0].Backends) }
	look := func() {
		s.w.Advance(time.Second)
		s.loop.Step(t.Context())
	}
	s.w.Hung = true
	if look(); backends() != 2 || status(t, s, "web").Ready != 2 {
		t.Errorf("nothing has happened to %+v", status(t, s, "web"))
	}
	s.w.Damage(1, 0)
	look()
	web := status(t, s, "web")
	if dead := web.Replicas[0]; backends() != 1 || s.w.Served("shop", "web") != 1 || dead.State != spec.StateUnhealthy || dead.Detail != vanished || web.Ready != 1 || web.Waiting == "" {
		t.Errorf("one is dead: %d backends, %+v", backends(), web)
	}
	s.w.CheckRoutes()
	s.w.Damage(0, 0) // the rules are flushed
	if look(); backends() != 1 || s.w.Served("shop", "web") != 1 {
		t.Errorf("rules flushed: %d backends, %s", backends(), s.w)
	}
	s.w.Damage(1, 1)
	if look(); backends() != 1 || status(t, s, "web").Ready != 0 {
		t.Errorf("the last one is dead too: %d backends, %+v", backends(), status(t, s, "web"))
	}
	events, _ := s.loop.events.after(0)
	count := 0
	for _, e := range events {
		if strings.HasSuffix(e.Message, vanished) {
			count++
		}
	}
	if count != 2 || len(s.w.Violations) > 0 {
		t.Errorf("told %d times; %v", count, s.w.Violations)
	}
	s.w.Hung = false
	s.live(10*time.Second, time.Second)
	var since uint64
	if over := told(s, spec.EventRepaired, &since); len(over) == 0 || !strings.HasPrefix(over[len(over)-1].Message, "no longer: look at containers: ") {
		t.Errorf("nobody says that it answers again: %+v", over)
	}
	if web := status(t, s, "web"); web.Ready != 2 || s.w.Served("shop", "web") != 2 || web.Waiting != "" {
		t.Errorf("it answers again: %+v", web)
	}
}

// Each cause that kept the agent from looking is told of once, and its end too.
func TestEachTroubleEnds(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	for range 2 {
		s.loop.trouble(errMute)
		s.loop.trouble(errors.New("look at containers: connection refused"))
	}
	s.loop.trouble(nil)
	s.loop.trouble(nil)
	var got []string
	for _, e := range first(s.loop.events.after(0)) {
		got = append(got, string(e.Kind)+" "+e.Message)
	}
	want := []string{
		"problem " + errMute.Error(), "problem look at containers: connection refused",
		"repaired no longer: containerd doesn't answer", "repaired no longer: look at containers: connection refused",
	}
	if !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
}

// mute is an engine that doesn't answer.
type mute struct{ Engine }

func (mute) Instances(ctx context.Context) ([]spec.Instance, error) {
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

// A silent engine is told of in the same words, however long it was waited for:
// each other text would be another event.
func TestOneTextForASilentEngine(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	s.loop.cfg.Engine = mute{s.loop.cfg.Engine}
	for _, blind := range []int{0, 1} {
		ctx, cancel := context.WithTimeout(t.Context(), 2*blindTime)
		s.loop.blind.Store(int64(blind))
		if _, err := s.loop.instances(ctx); !errors.Is(err, errMute) || !strings.HasPrefix(err.Error(), "containerd doesn't answer; ") {
			t.Errorf("after %d silent looks: %v", blind, err)
		}
		cancel()
	}
}

// What a look meets while the agent itself restarts the engine is told as that,
// and a look that is answered ends it.
func TestLookWhileTheEngineIsRestarted(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	s.w.Hung = true
	now := s.w.Now()
	s.loop.guard.take(canary{began: now.Add(-time.Minute), ended: now, present: true, err: spec.ErrUnavailable})
	s.loop.guard.ending = true
	if _, err := s.loop.instances(t.Context()); !errors.Is(err, errRestarting) {
		t.Errorf("while it is stopped: %v", err)
	}
	s.loop.guard.restarted(now, nil)
	if _, err := s.loop.instances(t.Context()); !errors.Is(err, errRestarting) || s.loop.guard.says(s.w.Now()) == "" {
		t.Errorf("while it starts: %v, %q", err, s.loop.guard.says(s.w.Now()))
	}
	s.w.Hung = false
	s.w.Advance(time.Second)
	if _, err := s.loop.instances(t.Context()); err != nil || s.loop.guard.says(s.w.Now()) != "" {
		t.Errorf("once it answers: %v, %q", err, s.loop.guard.says(s.w.Now()))
	}
	wantNext(t, errRestarting.Error())
}
