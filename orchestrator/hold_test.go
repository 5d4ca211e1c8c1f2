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

// two is a world in which shop and blog run.
func two(t *testing.T) *scenario {
	t.Helper()
	s := newScenario(1, world.Truth)
	t.Cleanup(func() { s.stop() })
	for _, name := range []string{"shop", "blog"} {
		if op := ask(t, s, one(name, "fast")); op.State != spec.OperationDone {
			t.Fatalf("%s: %+v", name, op)
		}
	}
	return s
}

// A copy of the store from before the last release knows the project, and not
// what runs of it: that serves on until somebody decides.
func TestOldCopyOfTheStoreHolds(t *testing.T) {
	s := two(t)
	before := s.w.Running()
	i := slices.IndexFunc(before, func(id string) bool { return strings.HasPrefix(id, "shop-") })
	s.w.LoseRecords(before[i])
	s.start(0)
	s.live(time.Minute, time.Second)
	if after := s.w.Running(); !slices.Equal(before, after) || s.w.Served("shop", "web") != 1 {
		t.Fatalf("what ran was touched: %v, then %v\n%s", before, after, s.w)
	}
	if err := s.loop.mayChange(); err == nil || !strings.Contains(err.Error(), "doesn't know 1 replica that it finds on this host ("+before[i]+"): it is another one, or older than they are") {
		t.Errorf("changes: %v", err)
	}
	s.removeUnknown = true
	s.start(0)
	s.live(time.Minute, time.Second)
	if s.loop.mayChange() != nil || s.w.Served("shop", "web") != 1 {
		t.Errorf("with --remove-unknown shop isn't as its release has it: %v", s.loop.mayChange())
	}
}

// An agent that got a new store, or an older one, must not take what it doesn't
// know for leftovers.
func TestLostStoreRemovesNothing(t *testing.T) {
	for _, tc := range []struct {
		name string
		kept []string
		want string
	}{
		{"all of it", nil, "the store in /state doesn't know 2 replicas that it finds on this host (blog-web-"},
		{"what came after a backup", []string{"blog"}, "the store in /state doesn't know 1 replica that it finds on this host (shop-web-"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := two(t)
			before := s.w.Running()
			s.w.LoseStore(tc.kept...)
			s.start(0)
			s.live(time.Minute, time.Second)
			if after := s.w.Running(); !slices.Equal(before, after) || s.w.Served("shop", "web") != 1 || s.w.Served("blog", "web") != 1 {
				t.Fatalf("what ran was touched: %v, then %v\n%s", before, after, s.w)
			}
			st, err := s.loop.Status(t.Context())
			if err != nil || len(st.Problems) != 1 || !strings.Contains(st.Problems[0], tc.want) || !strings.Contains(st.Problems[0], "--remove-unknown") {
				t.Errorf("status: %v, %v", st.Problems, err)
			}
			wantNext(t, st.Problems...)
			for _, p := range st.Projects {
				known := slices.Contains(tc.kept, p.Name)
				for _, service := range p.Services {
					if r := service.Replicas[0]; known != (r.State == spec.StateReady) || !known && (r.State != spec.StateHeld || service.Waiting != "stays as it is while the agent holds") {
						t.Errorf("%s is shown as %s: %q", r.Replica, r.State, service.Waiting)
					}
				}
			}
			if rules, err := s.loop.Rules(t.Context()); err != nil || rules.Held != st.Problems[0] {
				t.Errorf("rules: %+v, %v", rules, err)
			}
			if _, err := s.loop.Deploy(t.Context(), spec.DeployRequest{Project: valid("third", "fast")}); !errors.Is(err, spec.ErrRefused) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("deploy: %v", err)
			}
			s.answer(func(ctx context.Context) {
				if _, err := s.loop.Change(ctx, "blog", spec.ChangeRequest{Kind: "down"}); !errors.Is(err, spec.ErrRefused) || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("down: %v", err)
				}
			})
			s.removeUnknown = true
			s.start(0)
			s.live(time.Minute, time.Second)
			if left := len(s.w.Running()); left != len(tc.kept) || s.loop.mayChange() != nil {
				t.Errorf("with --remove-unknown %d run: %v", left, s.loop.mayChange())
			}
		})
	}
}

// What appears while the agent runs says nothing about its store: it is left
// alone, and everything else goes on.
func TestStrangerOfARunningAgentHoldsNothing(t *testing.T) {
	s := two(t)
	stray := spec.Endpoint{Replica: "zzz"}
	if err := s.w.Attach(t.Context(), stray); err != nil {
		t.Fatal(err)
	}
	s.live(time.Second, time.Second)
	if found, _, err := s.w.Attached(t.Context()); err != nil || !slices.Contains(found, stray.Replica) {
		t.Fatalf("what nobody deployed was removed: %v, %v", found, err)
	}
	st, err := s.loop.Status(t.Context())
	if err != nil || len(st.Problems) != 1 || !strings.Contains(st.Problems[0], "1 replica (zzz)") {
		t.Errorf("status: %q, %v", st.Problems, err)
	}
	wantNext(t, st.Problems...)
	for _, want := range []string{"netns/zzz", "no container, but a namespace", "start the agent once with --remove-unknown"} {
		if !strings.Contains(strings.Join(st.Problems, "; "), want) {
			t.Errorf("%q doesn't say %q", st.Problems, want)
		}
	}
	if op := ask(t, s, one("blog", "slow")); op.State != spec.OperationDone {
		t.Errorf("a deploy beside it: %+v", op)
	}
	s.removeUnknown = true // the way out that it names
	s.start(0)
	s.live(time.Minute, time.Second)
	if found, _, err := s.w.Attached(t.Context()); err != nil || slices.Contains(found, stray.Replica) || s.w.Served("shop", "web") != 1 {
		t.Errorf("with --remove-unknown: %v, %v", found, err)
	}
}

// With another pool than its store's an agent holds, whatever it may remove.
func TestOtherPoolHolds(t *testing.T) {
	s := two(t)
	before := s.w.Running()
	s.pool, s.removeUnknown = "10.77.0.0/16", true
	s.start(0)
	s.live(time.Minute, time.Second)
	if after := s.w.Running(); !slices.Equal(before, after) || s.w.Served("shop", "web") != 1 {
		t.Fatalf("what ran was touched: %v, then %v\n%s", before, after, s.w)
	}
	if err := s.loop.mayChange(); !errors.Is(err, spec.ErrRefused) || !strings.Contains(err.Error(), "which isn't in --pool 10.77.0.0/16") {
		t.Errorf("changes: %v", err)
	}
	select {
	case <-s.loop.Acting():
		t.Error("it acts")
	default:
	}
	s.pool = ""
	s.start(0)
	s.live(time.Minute, time.Second)
	<-s.loop.Acting()
	if after := s.w.Running(); !slices.Equal(before, after) || s.loop.mayChange() != nil {
		t.Errorf("with its own again: %v, %v", after, s.loop.mayChange())
	}
}

// With another state directory the containers are in a containerd namespace
// that the agent doesn't look into: only their network is seen.
func TestLostStoreKeepsTheNetworkOfContainersElsewhere(t *testing.T) {
	s := two(t)
	running := s.w.Running()
	for range running {
		s.w.Damage(2, 0)
	}
	s.w.LoseStore()
	s.start(0)
	s.live(time.Minute, time.Second)
	if left := s.w.Leftovers(nil); len(left) != len(running) {
		t.Errorf("left: %v", left)
	}
}
