package orchestrator

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"dunnage/orchestrator/world"
	"dunnage/spec"
)

// stuckEngine starts the replicas of one project only when it is let go, whatever
// the caller's deadline.
type stuckEngine struct {
	*world.World
	project string
	begun   chan string
	release chan struct{}
}

func (e *stuckEngine) Start(ctx context.Context, id string) error {
	if strings.HasPrefix(id, e.project+"-") {
		e.begun <- id
		<-e.release
	}
	return e.World.Start(ctx, id)
}

// An action that hangs holds up its own replica, which is left alone until it
// ends, and nobody else.
func TestOneActionHangs(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	stuck := &stuckEngine{World: s.w, project: "shop", begun: make(chan string, 100), release: make(chan struct{})}
	s.loop.cfg.Engine = stuck
	first, err := take(t, s, valid("shop", "fast"), spec.Turn{})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	s.live(5*time.Second, time.Second)
	if took := time.Since(began); took > 10*wavePatience {
		t.Errorf("looking on took %s", took)
	}
	if op := ask(t, s, valid("blog", "fast")); op.State != spec.OperationDone {
		t.Errorf("another project: %+v", op)
	}
	if len(stuck.begun) != 1 {
		t.Errorf("begun %d times beside itself", len(stuck.begun))
	}
	for id := range s.loop.waves.busy {
		s.loop.waves.busy[id][0].since = time.Now().Add(-2 * stuckAfter)
	}
	if told := s.loop.stuck(); len(told) != 1 || !strings.HasPrefix(told[0], "start shop-web-") {
		t.Errorf("told: %q", told)
	}
	close(stuck.release)
	if op := pass(t, s, first.ID, time.Minute); op.State != spec.OperationDone {
		t.Errorf("let go: %+v", op)
	}
	if len(s.loop.waves.busy) != 0 || len(s.w.Violations) > 0 {
		t.Errorf("%d at work; %v", len(s.loop.waves.busy), s.w.Violations)
	}
}

// An agent that starts while the engine hangs shows what store and kernel know,
// soon.
func TestStatusWithoutALook(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	p := valid("shop", "fast")
	p.Services[0].Replicas = 2
	if op := ask(t, s, p); op.State != spec.OperationDone {
		t.Fatalf("%+v", op)
	}
	s.start(0)
	s.w.Hung = true
	s.w.Damage(1, 0) // one of them dies
	s.loop.Step(t.Context())
	began := time.Now()
	st, err := s.loop.Status(t.Context())
	if took := time.Since(began); err != nil || took > 10*time.Second {
		t.Fatalf("%v after %s", err, took)
	}
	if len(st.Problems) != 1 || !strings.Contains(st.Problems[0], "what the store and the kernel say") || !strings.Contains(st.Problems[0], "look at containers") {
		t.Errorf("problems: %q", st.Problems)
	}
	rs := st.Projects[0].Services[0].Replicas
	var states []string
	for _, r := range rs {
		states = append(states, string(r.State))
	}
	slices.Sort(states)
	if len(rs) != 2 || states[1] != string(spec.StateReady) || states[0] == string(spec.StateReady) {
		t.Errorf("one lives and one is dead: %q", states)
	}
	if !st.Started.Equal(s.loop.began) {
		t.Error("it doesn't say since when")
	}
}

// While the engine doesn't answer, looks are short, but not all of them.
func TestBlindLooksAreShort(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	var patience []time.Duration
	s.loop.cfg.Engine = deadlines{s.w, &patience}
	for range 2*fullEvery + 1 {
		ctx, cancel := context.WithTimeout(t.Context(), lookTimeout)
		if _, err := s.loop.instances(ctx); err == nil {
			t.Fatal("it answers")
		}
		cancel()
	}
	for i, p := range patience {
		if full := p > blindTime; full != (i%fullEvery == 0) {
			t.Errorf("look %d may take %s", i, p)
		}
	}
}

type deadlines struct {
	*world.World
	left *[]time.Duration
}

func (d deadlines) Instances(ctx context.Context) ([]spec.Instance, error) {
	until, _ := ctx.Deadline()
	*d.left = append(*d.left, time.Until(until))
	return nil, spec.ErrUnavailable
}
