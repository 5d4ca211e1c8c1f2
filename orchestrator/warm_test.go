package orchestrator

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"dunnage/orchestrator/world"
	"dunnage/spec"
)

// warmth is a world in which release 2 of project shop has just taken the place
// of release 1, which stays warm for five minutes.
func warmth(t *testing.T) (*scenario, spec.Project) {
	t.Helper()
	s := newScenario(1, world.Truth)
	t.Cleanup(func() { s.stop() })
	p := valid("shop", "slow")
	p.Services[0].Replicas, p.Services[0].KeepWarm = 2, spec.Duration(5*time.Minute)
	p.Services[0].Drain = spec.Duration(2 * time.Second)
	if op := ask(t, s, p); op.State != spec.OperationDone {
		t.Fatalf("%+v", op)
	}
	op := deployNext(t, s, p, "2")
	if op.State != spec.OperationDone || len(op.Warnings) != 1 || !strings.Contains(op.Warnings[0], "web: 2 replicas of release 1 stay warm for 5m0s") {
		t.Fatalf("%+v", op)
	}
	s.live(3*time.Second, time.Second) // nothing is retired meanwhile
	return s, p
}

// deployNext deploys the project with another version of its service.
func deployNext(t *testing.T, s *scenario, p spec.Project, version string) spec.Operation {
	t.Helper()
	p.Services = slices.Clone(p.Services)
	p.Services[0].Container.Environment = []string{"V=" + version}
	op, err := take(t, s, p, spec.Turn{})
	if err != nil {
		t.Fatal(err)
	}
	return pass(t, s, op.ID, time.Minute)
}

// changed asks for a change, and lets the world live until that has ended.
func changed(t *testing.T, s *scenario, r spec.ChangeRequest) spec.Operation {
	t.Helper()
	var op spec.Operation
	var err error
	s.answer(func(ctx context.Context) { op, err = s.loop.Change(ctx, "shop", r) })
	if err != nil {
		t.Fatal(err)
	}
	return pass(t, s, op.ID, time.Minute)
}

// warm lists what is shown as warm.
func warm(t *testing.T, s *scenario) []spec.ReplicaStatus {
	t.Helper()
	return slices.DeleteFunc(slices.Clone(status(t, s, "web").Replicas), func(r spec.ReplicaStatus) bool { return r.State != spec.StateWarm })
}

// wantWarm checks how many replicas are warm and how many run in all.
func wantWarm(t *testing.T, s *scenario, what string, want, running int) {
	t.Helper()
	if got, run := len(warm(t, s)), len(s.w.Running()); got != want || run != running || len(s.w.Violations) > 0 {
		t.Errorf("%s: %d warm, %d run, want %d and %d; %v\n%+v", what, got, run, want, running, s.w.Violations, status(t, s, "web"))
	}
}

func TestWarmRollbackIsOneSwap(t *testing.T) {
	s, _ := warmth(t)
	wantWarm(t, s, "after the deploy", 2, 4)
	until := warm(t, s)[0].WarmUntil
	if left := until.Sub(s.w.Now()); left > 5*time.Minute || left < 4*time.Minute || warm(t, s)[0].Release != 1 {
		t.Errorf("%+v", warm(t, s)[0])
	}
	old := warm(t, s)
	before := len(s.w.String())
	var op spec.Operation
	var err error
	s.answer(func(ctx context.Context) { op, err = s.loop.Change(ctx, "shop", spec.ChangeRequest{Kind: "rollback"}) })
	if err != nil {
		t.Fatal(err)
	}
	s.loop.Step(t.Context())
	for _, r := range old {
		if !strings.Contains(s.w.String(), "route shop/web -> ") || !routed(s, r.Replica) {
			t.Errorf("%s takes no connections after one step:\n%s", r.Replica, s.w.String()[before:])
		}
	}
	if op = pass(t, s, op.ID, time.Minute); op.State != spec.OperationDone || op.Release != 1 || len(op.Warnings) > 0 {
		t.Errorf("%+v", op)
	}
	s.live(10*time.Second, time.Second)
	wantWarm(t, s, "what was left goes", 0, 2)
	for _, word := range []string{"create shop", "start shop"} {
		if strings.Contains(s.w.String()[before:], word) {
			t.Errorf("the rollback has to %s", word)
		}
	}
	if rec, _ := s.loop.state.project("shop"); len(rec.Warm) != 0 {
		t.Errorf("recorded: %+v", rec.Warm)
	}
}

// routed reports whether the loop's rules name the replica.
func routed(s *scenario, id string) bool {
	return slices.ContainsFunc(s.loop.applied.Services, func(r spec.ServiceRoute) bool {
		return slices.ContainsFunc(r.Backends, func(b spec.Backend) bool { return b.Replica == id })
	})
}

// A rollback to what is warm knows no batches: nothing has to be awaited.
func TestWarmRollbackKnowsNoBatches(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	p := valid("shop", "fast")
	p.Services[0].Replicas, p.Services[0].KeepWarm = 3, spec.Duration(time.Hour)
	p.Services[0].Update.Parallelism, p.Services[0].Update.Delay = 1, spec.Duration(5*time.Second)
	ask(t, s, p)
	if op := deployNext(t, s, p, "2"); op.State != spec.OperationDone {
		t.Fatalf("%+v", op)
	}
	op := changed(t, s, spec.ChangeRequest{Kind: "rollback"})
	if took := op.Ended.Sub(op.Started); op.State != spec.OperationDone || took > time.Second {
		t.Errorf("after %s: %+v", took, op)
	}
}

// A rollback to what isn't warm any more says beforehand what it creates, and who
// is down meanwhile.
func TestColdRollbackSaysWhatItTakes(t *testing.T) {
	s, p := warmth(t)
	dies := warm(t, s)[0].Replica
	s.w.Damage(1, slices.Index(s.w.Running(), dies))
	s.live(20*time.Second, time.Second)
	const first, second = "release 1 doesn't run any more: the rollback creates 1 replica of web (its last start took 2s); their images are on this host",
		"stop-first: web is down for about 2s (its last start took 2s); connections are refused"
	if op := changed(t, s, spec.ChangeRequest{Kind: "rollback"}); !slices.Equal(op.Warnings, []string{first}) {
		t.Errorf("with one of two left: %q", op.Warnings)
	}
	p.Services[0].KeepWarm, p.Services[0].Update.Order = 0, spec.StopFirst
	deployNext(t, s, p, "3")
	deployNext(t, s, p, "4")
	s.live(20*time.Second, time.Second)
	op := changed(t, s, spec.ChangeRequest{Kind: "rollback"})
	if want := strings.NewReplacer("release 1", "release 3", "1 replica", "2 replicas").Replace(first); !slices.Equal(op.Warnings, []string{want, second}) {
		t.Errorf("with none left: %q", op.Warnings)
	}
	changed(t, s, spec.ChangeRequest{Kind: "down"})
	if op := changed(t, s, spec.ChangeRequest{Kind: "rollback"}); len(op.Warnings) != 1 || !strings.Contains(op.Warnings[0], "creates 2 replicas of web") {
		t.Errorf("of a project that is down: %q", op.Warnings)
	}
}

func TestWarmEnds(t *testing.T) {
	for name, tc := range map[string]struct {
		do            func(t *testing.T, s *scenario, p spec.Project)
		warm, running int
	}{
		"when its time is over": {func(_ *testing.T, s *scenario, _ spec.Project) { s.live(5*time.Minute, time.Second) }, 0, 2},
		"not with the agent": {func(_ *testing.T, s *scenario, _ spec.Project) {
			s.start(0)
			s.live(4*time.Minute, time.Second)
		}, 2, 4},
		"when its time is over, over a start of the agent": {func(_ *testing.T, s *scenario, _ spec.Project) {
			s.start(0)
			s.live(5*time.Minute, time.Second)
		}, 0, 2},
		"with the host": {func(_ *testing.T, s *scenario, _ spec.Project) {
			s.w.Damage(4, 0)
			s.start(0)
			s.live(20*time.Second, time.Second)
		}, 0, 2},
		"for one that dies": {func(t *testing.T, s *scenario, _ spec.Project) {
			dies := warm(t, s)[0].Replica
			s.w.Damage(1, slices.Index(s.w.Running(), dies))
			s.live(20*time.Second, time.Second)
			if slices.Contains(s.w.Running(), dies) {
				t.Error(dies + " was started again")
			}
		}, 1, 3},
		"when the service is replaced once more": {func(t *testing.T, s *scenario, p spec.Project) {
			deployNext(t, s, p, "3")
			s.live(20*time.Second, time.Second)
			if got := warm(t, s); len(got) == 0 || got[0].Release != 2 {
				t.Errorf("%+v", got)
			}
		}, 2, 4},
		"not with a rollback from what was to replace the service": {func(t *testing.T, s *scenario, p spec.Project) {
			p.Services = slices.Clone(p.Services)
			p.Services[0].Container.Environment = []string{"V=3"}
			if _, err := take(t, s, p, spec.Turn{}); err != nil {
				t.Fatal(err)
			}
			s.live(time.Second, 100*time.Millisecond)
			if op := changed(t, s, spec.ChangeRequest{Kind: "rollback"}); op.Release != 2 {
				t.Errorf("%+v", op)
			}
			s.live(20*time.Second, time.Second)
			if got := warm(t, s); len(got) == 0 || got[0].Release != 1 {
				t.Errorf("%+v", got)
			}
		}, 2, 4},
		"when its time is over, while a rollout stands still": {func(t *testing.T, s *scenario, p spec.Project) {
			p.Services = slices.Clone(p.Services)
			p.Services[0].Container.Image, p.Services[0].Update.OnFailure = "broken", spec.FailurePause
			if _, err := take(t, s, p, spec.Turn{}); err != nil {
				t.Fatal(err)
			}
			s.live(4*time.Minute, time.Second)
			wantWarm(t, s, "while it stands still", 2, 4)
			s.live(time.Minute, time.Second)
		}, 0, 2},
		"when a release that asks for it no more has converged": {func(t *testing.T, s *scenario, p spec.Project) {
			p.Services[0].KeepWarm = 0
			deployNext(t, s, p, "3")
			s.live(20*time.Second, time.Second)
		}, 0, 2},
		"not when it is scaled": {func(t *testing.T, s *scenario, _ spec.Project) {
			changed(t, s, spec.ChangeRequest{Kind: "scale", Replicas: map[string]int{"web": 3}})
			s.live(20*time.Second, time.Second)
		}, 2, 5},
		"when the manifest asks for it no more": {func(t *testing.T, s *scenario, p spec.Project) {
			p.Services[0].KeepWarm = 0
			deployNext(t, s, p, "2")
			s.live(20*time.Second, time.Second)
		}, 0, 2},
		"with a stop": {func(t *testing.T, s *scenario, _ spec.Project) {
			changed(t, s, spec.ChangeRequest{Kind: "stop"})
			s.live(20*time.Second, time.Second)
		}, 0, 0},
		"with the project": {func(t *testing.T, s *scenario, _ spec.Project) {
			changed(t, s, spec.ChangeRequest{Kind: "down"})
			s.live(20*time.Second, time.Second)
			if left := s.w.Leftovers(nil); len(left) > 0 {
				t.Errorf("%v", left)
			}
		}, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s, p := warmth(t)
			s.w.Traffic(time.Hour)
			tc.do(t, s, p)
			wantWarm(t, s, name, tc.warm, tc.running)
		})
	}
}

// A release that fails takes no way back away: what was warm before it stays so,
// until the time that was told.
func TestWarmOutlivesAReleaseThatFails(t *testing.T) {
	s, p := warmth(t)
	before := warm(t, s)
	p.Services = slices.Clone(p.Services)
	p.Services[0].Container.Image = "broken"
	const third = "2 replicas of release 1, which are warm, stay until this release has converged, should it fail"
	if got := preview(t, s, p).Services[0].Warm; got != "2 of the old version stay for 5m0s, for a rollback at once: its memory is in use twice; "+third {
		t.Errorf("the plan: %q", got)
	}
	op, err := take(t, s, p, spec.Turn{})
	if err != nil {
		t.Fatal(err)
	}
	op = pass(t, s, op.ID, 2*time.Second)
	if !slices.Contains(op.Warnings, "web: "+third) {
		t.Errorf("%q", op.Warnings)
	}
	wantWarm(t, s, "while the release comes in", 2, 4)
	if op = pass(t, s, op.ID, time.Minute); op.State != spec.OperationRolledBack {
		t.Errorf("%+v", op)
	}
	if !slices.Equal(op.Warnings, []string{"web: " + third}) { // what serves again isn't warm
		t.Errorf("after a release that failed: %q", op.Warnings)
	}
	s.live(20*time.Second, time.Second)
	wantWarm(t, s, "after a release that failed", 2, 4)
	for i, r := range warm(t, s) {
		if r.Replica != before[i].Replica || !r.WarmUntil.Equal(before[i].WarmUntil) {
			t.Errorf("was %+v, is %+v", before[i], r)
		}
	}
	if op := changed(t, s, spec.ChangeRequest{Kind: "rollback"}); op.State != spec.OperationDone || op.Release != 1 || op.Ended.Sub(op.Started) > time.Second {
		t.Errorf("%+v", op)
	}
	for _, r := range before {
		if !routed(s, r.Replica) {
			t.Errorf("%s takes no connections after the rollback", r.Replica)
		}
	}
}

// Only what has converged, and runs, is said to stay warm, not what was tried last.
func TestWarmIsToldOfWhatServes(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	p := valid("shop", "broken")
	web := &p.Services[0]
	web.Replicas, web.KeepWarm, web.Limits.Memory = 2, spec.Duration(5*time.Minute), 64<<20
	try := func(image string, state spec.OperationState, foreseen, told string) {
		t.Helper()
		p.Services = slices.Clone(p.Services)
		p.Services[0].Container.Image = image
		if got := preview(t, s, p).Services[0].Warm; got != foreseen {
			t.Errorf("before %s: the plan says %q, want %q", image, got, foreseen)
		}
		op, err := take(t, s, p, spec.Turn{})
		if err != nil {
			t.Fatal(err)
		}
		if op = pass(t, s, op.ID, 5*time.Minute); op.State != state || strings.Join(op.Warnings, "\n") != told {
			t.Errorf("%s: %s (%s), warned of %q, want %s and %q", image, op.State, op.Cause, op.Warnings, state, told)
		}
	}
	const two = "2 of the old version stay for 5m0s, for a rollback at once: up to 128 MiB of memory more"
	try("broken", spec.OperationFailed, "", "")
	try("slow", spec.OperationDone, "", "")
	p.Services[0].Update.OnFailure = spec.FailurePause
	try("broken", spec.OperationPaused, two, "")
	try("fast", spec.OperationDone, two, "web: 2 replicas of release 2 stay warm for 5m0s, so that a rollback to it is one swap; "+
		"until then they run on, beside the new ones, and take memory, up to 128 MiB")
	if got := warm(t, s); len(got) != 2 || got[0].Release != 2 {
		t.Errorf("%+v", got)
	}
}

// With what is warm stands the release that a rollback goes to, not the one that it
// was made for; with what serves, the present one.
func TestWarmShowsWhereARollbackGoes(t *testing.T) {
	s, p := warmth(t)
	p.Services[0].Replicas = 1
	deployNext(t, s, p, "2") // release 3
	p.Services[0].Replicas = 2
	deployNext(t, s, p, "2") // 4
	deployNext(t, s, p, "3") // 5
	p.Services[0].Drain = spec.Duration(time.Second)
	if op := deployNext(t, s, p, "3"); op.State != spec.OperationDone || op.Release != 6 {
		t.Fatalf("%+v", op)
	}
	s.live(3*time.Second, time.Second)
	made := map[string]int{}
	for _, r := range status(t, s, "web").Replicas {
		if made[r.Replica] = r.Release; r.Release != map[spec.ReplicaState]int{spec.StateWarm: 4, spec.StateReady: 6}[r.State] {
			t.Errorf("ps shows %s, which is %s, with release %d", r.Replica, r.State, r.Release)
		}
	}
	report, err := s.loop.DiskReport(t.Context())
	if err != nil || len(report.Items) != 4 || len(made) != 4 {
		t.Fatalf("%+v, %v; %v", report.Items, err, made)
	}
	for _, i := range report.Items {
		if !slices.Equal(i.Releases, []int{made[i.Name]}) {
			t.Errorf("df has %s with the releases %v, ps with %d", i.Name, i.Releases, made[i.Name])
		}
	}
}

// What is warm is as it should be, and is told from what serves by its name.
func TestExplainWhatIsWarm(t *testing.T) {
	s, _ := warmth(t)
	var serves string
	old := warm(t, s)[0]
	for _, r := range status(t, s, "web").Replicas {
		if r.Number == old.Number && r.Replica != old.Replica {
			serves = r.Replica
		}
	}
	for asked, want := range map[string]string{
		"web-1":     "connections reach " + serves,
		serves:      "connections reach " + serves,
		old.Replica: "connections to its own address reach " + old.Replica + ", which is warm: the rules send it none before `dunnage rollback -p shop 1`",
	} {
		e, err := s.loop.Explain(t.Context(), spec.ExplainRequest{Asked: asked})
		if err != nil || !e.OK || e.Verdict != want || len(e.Next) > 0 {
			t.Errorf("%s: %+v, %v, want %q", asked, e, err, want)
		}
	}
}

// What is warm never takes connections by itself: release 2 was to replace it.
func TestWarmDoesNotStepIn(t *testing.T) {
	s, _ := warmth(t)
	current := slices.DeleteFunc(slices.Clone(status(t, s, "web").Replicas), func(r spec.ReplicaStatus) bool { return r.State == spec.StateWarm })
	for _, r := range current {
		s.w.Damage(1, slices.Index(s.w.Running(), r.Replica))
		s.loop.Step(t.Context())
	}
	for _, r := range warm(t, s) {
		if routed(s, r.Replica) {
			t.Errorf("%s takes connections", r.Replica)
		}
	}
}

// Nor when its time is over while nothing else is ready.
func TestWarmGoesThoughNothingIsReady(t *testing.T) {
	s, p := warmth(t)
	p.Services = slices.Clone(p.Services)
	p.Services[0].Container.Image, p.Services[0].Unhealthy = "sickly", spec.UnhealthyKeep
	op, err := take(t, s, p, spec.Turn{})
	if err != nil {
		t.Fatal(err)
	}
	pass(t, s, op.ID, 20*time.Second)
	s.live(4*time.Minute, time.Second)
	wantWarm(t, s, "while it is warm", 2, 2)
	s.live(2*time.Minute, time.Second)
	wantWarm(t, s, "when its time is over", 0, 0)
}

// counting is a network that knows whose connections it was asked for.
type counting struct {
	*world.World
	asked []netip.Addr
}

func (c *counting) Connections(ctx context.Context, addrs []netip.Addr) (map[netip.Addr]int, error) {
	c.asked = append(c.asked, addrs...)
	return c.World.Connections(ctx, addrs)
}

// Nobody walks through conntrack's table for what is warm, and none of its
// connections is cut for that.
func TestWarmIsNotCounted(t *testing.T) {
	s, p := warmth(t)
	network := &counting{World: s.w}
	s.loop.cfg.Network = network
	s.live(time.Minute, time.Second)
	if len(network.asked) > 0 {
		t.Errorf("connections of %v were counted", network.asked)
	}
	changed(t, s, spec.ChangeRequest{Kind: "rollback"})
	deployNext(t, s, p, "3")
	s.w.Traffic(time.Hour) // to what is replaced now
	deployNext(t, s, p, "4")
	s.live(2*time.Second, time.Second)
	network.asked = nil
	changed(t, s, spec.ChangeRequest{Kind: "stop"})
	s.live(20*time.Second, time.Second)
	if len(network.asked) == 0 || len(s.w.Violations) > 0 {
		t.Errorf("asked for %v; %v", network.asked, s.w.Violations)
	}
}

// An unhealthy one isn't kept, and a rollback makes it anew.
func TestUnhealthyIsNotWarm(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	p := valid("shop", "sickly") // after 50 s
	p.Services[0].KeepWarm = spec.Duration(5 * time.Minute)
	p.Services[0].Unhealthy = spec.UnhealthyKeep
	op, err := take(t, s, p, spec.Turn{})
	if err != nil {
		t.Fatal(err)
	}
	pass(t, s, op.ID, 10*time.Second)
	p.Services = slices.Clone(p.Services)
	p.Services[0].Container.Image = "fast"
	if op, err = take(t, s, p, spec.Turn{}); err != nil {
		t.Fatal(err)
	}
	pass(t, s, op.ID, 10*time.Second)
	s.live(5*time.Second, time.Second)
	wantWarm(t, s, "while it is well", 1, 2)
	s.live(time.Minute, time.Second)
	wantWarm(t, s, "when it is sick", 0, 1)
	if left := s.w.Leftovers([]string{status(t, s, "web").Replicas[0].Replica}); len(left) > 0 {
		t.Error(left)
	}
	if op := changed(t, s, spec.ChangeRequest{Kind: "rollback"}); op.State != spec.OperationDone || s.w.Served("shop", "web") != 1 {
		t.Errorf("%+v", op)
	}
}
