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

// take deploys p as the API does, without letting time pass, until its images are
// there, and returns the operation as it began.
func take(t *testing.T, s *scenario, p spec.Project, turn spec.Turn) (spec.Operation, error) {
	t.Helper()
	var op spec.Operation
	var err error
	s.answer(func(ctx context.Context) {
		op, err = s.loop.Deploy(ctx, spec.DeployRequest{Project: p, Turn: turn})
		for now, found := op, err; found == nil && now.State == spec.OperationPulling && ctx.Err() == nil; {
			time.Sleep(time.Millisecond)
			now, found = s.loop.Operation(ctx, op.ID)
		}
	})
	return op, err
}

// pass lets the world live until the operation has ended, or for d.
func pass(t *testing.T, s *scenario, id string, d time.Duration) spec.Operation {
	t.Helper()
	end := s.w.Now().Add(d)
	for {
		op, err := s.loop.Operation(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if op.State.Ended() || !s.w.Now().Before(end) {
			return op
		}
		patience := time.Millisecond // a job may be on its way to ask
		if op.State == spec.OperationPulling {
			patience = time.Second // this one is, and on a busy machine the world would grow old meanwhile
		}
		select {
		case r := <-s.loop.requests:
			r()
		case <-time.After(patience):
			s.live(200*time.Millisecond, 100*time.Millisecond)
		}
	}
}

func TestTwoDeploysAtOnce(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	first, err := take(t, s, valid("shop", "slow"), spec.Turn{Owner: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = take(t, s, valid("shop", "fast"), spec.Turn{Owner: "bob"})
	var hint interface{ Hint() string }
	if !errors.Is(err, spec.ErrRefused) || !strings.Contains(err.Error(), "deploy") || !strings.Contains(err.Error(), "by alice") {
		t.Fatalf("the second: %v", err)
	}
	if !errors.As(err, &hint) || !strings.Contains(hint.Hint(), "--wait") {
		t.Errorf("no way on: %v", err)
	}
	second, err := take(t, s, valid("shop", "fast"), spec.Turn{Wait: true})
	if err != nil || second.State != spec.OperationWaiting {
		t.Fatalf("one that waits: %+v, %v", second, err)
	}
	if op := pass(t, s, first.ID, time.Minute); op.State != spec.OperationDone || op.Release != 1 {
		t.Errorf("the first: %+v", op)
	}
	if op := pass(t, s, second.ID, time.Minute); op.State != spec.OperationDone || op.Release != 2 {
		t.Errorf("the one that waited: %+v", op)
	}
}

func TestTakeOver(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	first, err := take(t, s, valid("shop", "broken"), spec.Turn{})
	if err != nil {
		t.Fatal(err)
	}
	second, err := take(t, s, valid("shop", "fast"), spec.Turn{Owner: "bob", TakeOver: true})
	if err != nil {
		t.Fatal(err)
	}
	if op := pass(t, s, second.ID, time.Minute); op.State != spec.OperationDone {
		t.Errorf("the second: %+v", op)
	}
	if op := pass(t, s, first.ID, 0); op.State != spec.OperationFailed || op.Cause != "the deploy of bob took over" {
		t.Errorf("the first: %+v", op)
	}
}

// A project that has never got beyond its images can be taken down.
func TestDownEndsAPull(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	op := s.loop.ops.begin("shop", "deploy", "alice", spec.OperationPulling)
	s.loop.Step(t.Context())
	if st, _ := s.loop.Status(t.Context()); len(st.Projects) != 1 || !strings.HasPrefix(st.Projects[0].Busy, "deploy by alice, pulling for") {
		t.Errorf("status: %+v", st.Projects)
	}
	var down spec.Operation
	var err error
	s.answer(func(ctx context.Context) { down, err = s.loop.Change(ctx, "shop", spec.ChangeRequest{Kind: "down"}) })
	if err != nil || down.State != spec.OperationDone {
		t.Errorf("down: %+v, %v", down, err)
	}
	if op := pass(t, s, op.ID, 0); op.State != spec.OperationFailed {
		t.Errorf("the deploy: %+v", op)
	}
}

// A stop-first release that fails has ended only when the earlier one is back.
func TestRolledBackMeansBack(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	p := valid("shop", "slow")
	p.Services[0].Update.Order = spec.StopFirst
	if op := ask(t, s, p); op.State != spec.OperationDone {
		t.Fatalf("%+v", op)
	}
	p = valid("shop", "crashing")
	p.Services[0].Update.Order = spec.StopFirst
	op, err := take(t, s, p, spec.Turn{})
	if err != nil {
		t.Fatal(err)
	}
	op = pass(t, s, op.ID, time.Minute)
	if op.State != spec.OperationRolledBack || !strings.HasSuffix(op.Cause, "release 1 is back") || s.w.Served("shop", "web") != 1 {
		t.Errorf("%d served; %+v", s.w.Served("shop", "web"), op)
	}
	if web := op.Services[0]; web.Change != spec.ChangeBack || web.Ready != 1 || web.Duration != 0 {
		t.Errorf("what is now: %+v", web)
	}
}

// A deploy that changes nothing isn't a success while nothing is ready.
func TestUnchangedIsNotReady(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	p := valid("shop", "sickly")
	p.Services[0].Unhealthy = spec.UnhealthyKeep
	if op := ask(t, s, p); op.State != spec.OperationDone { // it is sick by now
		t.Fatalf("%+v", op)
	}
	op, err := take(t, s, p, spec.Turn{})
	if err != nil {
		t.Fatal(err)
	}
	if op = pass(t, s, op.ID, time.Minute); op.State != spec.OperationFailed || op.Services[0].Ready != 0 {
		t.Errorf("%+v", op)
	}
}

func TestRolloutPauseAndResume(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	if op := ask(t, s, valid("shop", "fast")); op.State != spec.OperationDone {
		t.Fatalf("%+v", op)
	}
	p := valid("shop", "crashing")
	p.Services[0].Update.OnFailure = spec.FailurePause
	op := ask(t, s, p)
	if op.State != spec.OperationPaused || !strings.Contains(op.Cause, "`dunnage rollout resume -p shop`") {
		t.Fatalf("%+v", op)
	}
	if web := outcomeOf(t, op, "web"); web.Ready != 0 || !strings.HasPrefix(web.Detail, "release 1 serves meanwhile, with 1 ready") {
		t.Errorf("who serves isn't named: %+v", web)
	}
	if r, err := s.loop.Releases(t.Context(), "shop"); err != nil || r[0].State != spec.ReleasePaused || !strings.HasPrefix(r[0].Cause, "shop-web-") {
		t.Errorf("%+v, %v", r, err)
	}
	if s.w.Served("shop", "web") != 1 {
		t.Error("the old release doesn't serve")
	}
	change := func(kind string) (op spec.Operation, err error) {
		s.answer(func(ctx context.Context) { op, err = s.loop.Change(ctx, "shop", spec.ChangeRequest{Kind: kind}) })
		return op, err
	}
	resumed, err := change("resume")
	if err != nil {
		t.Fatal(err)
	}
	if op := pass(t, s, resumed.ID, time.Minute); op.State != spec.OperationPaused {
		t.Errorf("it fails again: %+v", op)
	}
	back, err := change("rollback")
	if err != nil {
		t.Fatal(err)
	}
	if op := pass(t, s, back.ID, time.Minute); op.State != spec.OperationDone || op.Release != 1 {
		t.Errorf("%+v", op)
	}
	if _, err := change("pause"); !errors.Is(err, spec.ErrRefused) {
		t.Errorf("a pause of nothing: %v", err)
	}
}

// Who hears that a rollout is paused finds it paused, and what it failed of is known
// when something has taken its place.
func TestPauseIsShownAndKept(t *testing.T) {
	for _, kind := range []string{"deploy", "rollback"} {
		s := newScenario(1, world.Truth)
		ask(t, s, valid("shop", "fast"))
		p := valid("shop", "broken")
		p.Services[0].Update.OnFailure = spec.FailurePause
		op, err := take(t, s, p, spec.Turn{})
		if err != nil {
			t.Fatal(err)
		}
		for !op.State.Ended() {
			s.loop.Step(t.Context())
			s.w.Advance(100 * time.Millisecond)
			if op, err = s.loop.Operation(t.Context(), op.ID); err != nil {
				t.Fatal(err)
			}
		}
		st, err := s.loop.Status(t.Context())
		if err != nil || op.State != spec.OperationPaused || st.Projects[0].Paused == "" {
			t.Errorf("%s, and the status says %q", op.State, st.Projects[0].Paused)
		}
		paused := st.Projects[0].Paused
		if kind == "deploy" {
			op = ask(t, s, valid("shop", "slow"))
		} else {
			op = changed(t, s, spec.ChangeRequest{Kind: kind})
		}
		all, err := s.loop.Releases(t.Context(), "shop")
		if err != nil || op.State != spec.OperationDone {
			t.Fatalf("%+v, %v", op, err)
		}
		second := all[len(all)-2]
		if second.Number != 2 || second.State != spec.ReleaseFailed || second.Cause != paused {
			t.Errorf("after a %s, release %d is %q: %q, want it failed of %q", kind, second.Number, second.State, second.Cause, paused)
		}
		s.stop()
	}
}

// Who follows a paused rollout holds up no deploy, as its preview says; a scale is told
// what it would wait for.
func TestDeployWhilePaused(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	ask(t, s, valid("shop", "fast"))
	first, err := take(t, s, valid("shop", "slow"), spec.Turn{Owner: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	pass(t, s, first.ID, 500*time.Millisecond)
	changed(t, s, spec.ChangeRequest{Kind: "pause"})
	_, err = request(s, "shop", spec.ChangeRequest{Kind: "scale", Replicas: map[string]int{"web": 2}})
	var hint interface{ Hint() string }
	if !errors.Is(err, spec.ErrRefused) || !strings.Contains(err.Error(), "paused (on request)") || !strings.Contains(err.Error(), "by alice") {
		t.Errorf("a scale: %v", err)
	}
	if !errors.As(err, &hint) || !strings.Contains(hint.Hint(), "`dunnage rollout resume -p shop`") || strings.Contains(hint.Hint(), "--wait") {
		t.Errorf("the way on: %v", err)
	}
	if got := preview(t, s, valid("shop", "fast")); len(got.Notes) != 1 || !strings.Contains(got.Notes[0], "a deploy ends the pause") {
		t.Errorf("the preview: %q", got.Notes)
	}
	op, err := take(t, s, valid("shop", "fast"), spec.Turn{Owner: "bob", Wait: true}) // for nothing
	if err != nil {
		t.Fatal(err)
	}
	if op = pass(t, s, op.ID, time.Minute); op.State != spec.OperationDone || !strings.Contains(strings.Join(op.Warnings, "\n"), "release 2 was paused (on request)") {
		t.Errorf("%+v", op)
	}
	if op := pass(t, s, first.ID, 0); op.State != spec.OperationFailed || op.Cause != "the deploy of bob took over" {
		t.Errorf("the first: %+v", op)
	}
}

// What ran and never got ready is probed anew when somebody lets the rollout go
// on, and when the same is deployed again.
func TestFailedProbesAreTriedAgain(t *testing.T) {
	for _, kind := range []string{"resume", "deploy"} {
		s := newScenario(1, world.Truth)
		if op := ask(t, s, valid("shop", "fast")); op.State != spec.OperationDone {
			t.Fatalf("%+v", op)
		}
		p := valid("shop", "broken") // given up after ten seconds
		p.Services[0].Update.OnFailure = spec.FailurePause
		if op := ask(t, s, p); op.State != spec.OperationPaused {
			t.Fatalf("%+v", op)
		}
		var op spec.Operation
		var err error
		s.answer(func(ctx context.Context) {
			if kind == "deploy" {
				op, err = s.loop.Deploy(ctx, spec.DeployRequest{Project: p})
			} else {
				op, err = s.loop.Change(ctx, "shop", spec.ChangeRequest{Kind: kind})
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		op = pass(t, s, op.ID, time.Minute)
		if op.State != spec.OperationPaused || op.Ended.Sub(op.Started) < 10*time.Second {
			t.Errorf("%s: after %s: %+v", kind, op.Ended.Sub(op.Started), op)
		}
		if web := outcomeOf(t, op, "web"); web.Change != spec.ChangeReplace || strings.Contains(web.Detail, "leaves it as it is") {
			t.Errorf("%s: %+v", kind, web)
		}
		s.stop()
	}
}

// A release that is watched has arrived when the watch is over, not before.
func TestDeployWaitsForTheMonitor(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	p := valid("shop", "fast")
	p.Services[0].Update.Monitor = spec.Duration(5 * time.Second)
	op, err := take(t, s, p, spec.Turn{})
	if err != nil {
		t.Fatal(err)
	}
	if op = pass(t, s, op.ID, time.Minute); op.State != spec.OperationDone || op.Ended.Sub(op.Started) < 5*time.Second {
		t.Errorf("after %s: %+v", op.Ended.Sub(op.Started), op)
	}
	if r, err := s.loop.Releases(t.Context(), "shop"); err != nil || r[0].State != spec.ReleaseCurrent {
		t.Errorf("%+v, %v", r, err)
	}
}

// A start of what keeps crashing ends too.
func TestStartGivesUp(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	ask(t, s, valid("shop", "crashing"))
	change := func(kind string) spec.Operation {
		var op spec.Operation
		var err error
		s.answer(func(ctx context.Context) { op, err = s.loop.Change(ctx, "shop", spec.ChangeRequest{Kind: kind}) })
		if err != nil {
			t.Fatal(err)
		}
		return pass(t, s, op.ID, 10*time.Minute)
	}
	if op := change("stop"); op.State != spec.OperationDone {
		t.Fatalf("%+v", op)
	}
	if op := change("start"); op.State != spec.OperationFailed || !strings.Contains(op.Cause, "keeps trying") {
		t.Errorf("%+v", op)
	}
}

// A release may cure what the replicas of an unchanged generation failed of.
func TestReleaseGivesFreshTries(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	p := valid("shop", "crashing")
	p.Services[0].Restart.Mode = spec.RestartNo
	if op := ask(t, s, p); op.State != spec.OperationFailed {
		t.Fatalf("%+v", op)
	}
	p.Services[0].Limits.Memory = 1 << 30
	op, err := take(t, s, p, spec.Turn{})
	if err != nil {
		t.Fatal(err)
	}
	if op = pass(t, s, op.ID, time.Minute); op.State != spec.OperationFailed {
		t.Errorf("it fails again: %+v", op)
	}
	runs := 0
	for _, line := range strings.Split(s.w.String(), "\n") {
		if strings.Contains(line, " start shop-web-") {
			runs++
		}
	}
	if runs != 2 {
		t.Errorf("started %d times, want once for each release", runs)
	}
}

// A rollback in the middle of a rollout has ended when the earlier release is
// back, though that has never stopped being the good one.
func TestRollbackInMidRolloutMeansBack(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	p := valid("shop", "slow")
	p.Services[0].Replicas = 3
	if op := ask(t, s, p); op.State != spec.OperationDone {
		t.Fatalf("%+v", op)
	}
	p.Services[0].Container.Environment = []string{"V=2"}
	p.Services[0].Update.Parallelism = 1
	p.Services[0].Update.Delay = spec.Duration(time.Hour)
	op, err := take(t, s, p, spec.Turn{})
	if err != nil {
		t.Fatal(err)
	}
	pass(t, s, op.ID, 20*time.Second)
	var back spec.Operation
	s.answer(func(ctx context.Context) {
		back, err = s.loop.Change(ctx, "shop", spec.ChangeRequest{Kind: "rollback"})
	})
	if err != nil {
		t.Fatal(err)
	}
	back = pass(t, s, back.ID, time.Minute)
	if back.State != spec.OperationDone || back.Release != 1 || back.Services[0].Ready != 3 || s.w.Served("shop", "web") != 3 {
		t.Errorf("%+v", back)
	}
}

// A deploy of what serves, over one that has begun to replace it, has ended when
// all of it is back and nothing else takes connections.
func TestTakeOverMeansBack(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	p := valid("shop", "slow")
	p.Services[0].Replicas = 4
	p.Services[0].Update = spec.UpdatePolicy{
		Order: spec.StartFirst, Parallelism: 1, Delay: spec.Duration(2 * time.Second), Monitor: spec.Duration(time.Second),
	}
	if op := ask(t, s, p); op.State != spec.OperationDone {
		t.Fatalf("%+v", op)
	}
	next := p
	next.Services = slices.Clone(p.Services)
	next.Services[0].Container.Environment = []string{"V=2"}
	first, err := take(t, s, next, spec.Turn{})
	if err != nil {
		t.Fatal(err)
	}
	pass(t, s, first.ID, 6*time.Second)
	s.answer(func(ctx context.Context) {
		first, err = s.loop.Change(ctx, "shop", spec.ChangeRequest{Kind: "pause"})
	})
	if err != nil {
		t.Fatal(err)
	}
	if op := pass(t, s, first.ID, time.Second); op.State != spec.OperationDone {
		t.Errorf("the pause: %+v", op)
	}
	if st, _ := s.loop.Status(t.Context()); st.Projects[0].Paused == "" {
		t.Error("the pause has ended before the status shows it")
	}
	if web := status(t, s, "web"); web.Ready == 4 || web.Ready == 0 {
		t.Fatalf("the rollout isn't half way: %+v", web)
	}
	back, err := take(t, s, p, spec.Turn{TakeOver: true})
	if err != nil {
		t.Fatal(err)
	}
	back = pass(t, s, back.ID, time.Minute)
	web := status(t, s, "web")
	other := slices.ContainsFunc(web.Replicas, func(r spec.ReplicaStatus) bool { return r.Routed && r.Generation != web.Generation })
	if back.State != spec.OperationDone || web.Ready != 4 || other || s.w.Served("shop", "web") != 4 {
		t.Errorf("%+v\n%+v", back, web)
	}
}

// status is the service of project shop as people see it.
func status(t *testing.T, s *scenario, service string) spec.ServiceStatus {
	t.Helper()
	st, err := s.loop.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range st.Projects {
		for _, v := range p.Services {
			if p.Name == "shop" && v.Name == service {
				return v
			}
		}
	}
	return spec.ServiceStatus{}
}
