package orchestrator

import (
	"strings"
	"testing"
	"time"

	"dunnage/orchestrator/world"
	"dunnage/spec"
)

const mib = 1 << 20

// bounded is a world in which a service has replicas with a limit of 10 MiB for
// their writable layers.
func bounded(t *testing.T, change func(*spec.Service)) *scenario {
	t.Helper()
	s := newScenario(1, world.Truth)
	s.quiet = true
	t.Cleanup(func() { s.stop() })
	p := valid("shop", "slow")
	p.Services[0].Disk, p.Services[0].Drain = 10*mib, spec.Duration(2*time.Second)
	change(&p.Services[0])
	if op := ask(t, s, p); op.State != spec.OperationDone {
		t.Fatalf("%+v", op)
	}
	return s
}

// written is what the replica has written over its image.
func written(t *testing.T, s *scenario, replica string) int64 {
	t.Helper()
	items, err := s.w.Use(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range items {
		if i.Name == replica {
			return i.Bytes
		}
	}
	return 0
}

// TestOutgrownLayer: replicas that have outgrown their layers are replaced one at
// a time, by others that serve before they go.
func TestOutgrownLayer(t *testing.T) {
	s := bounded(t, func(v *spec.Service) { v.Replicas = 3 })
	before := status(t, s, "web").Replicas
	for _, r := range before[:2] {
		s.w.WriteLayer(r.Replica, 11*mib)
	}
	s.w.WriteLayer(before[2].Replica, 9*mib)
	for range 90 {
		s.live(time.Second, 250*time.Millisecond)
		if n := s.w.Served("shop", "web"); n < 3 {
			t.Fatalf("%d of 3 serve: %s", n, s.w)
		}
	}
	after := status(t, s, "web").Replicas
	if len(after) != 3 || len(s.w.Violations) > 0 {
		t.Fatalf("%+v %v", after, s.w.Violations)
	}
	for i, r := range after {
		exchanged := i < 2
		if got := written(t, s, r.Replica) < mib; r.Replica != before[i].Replica || got != exchanged {
			t.Errorf("%s has written %d, want an empty layer: %v", r.Replica, written(t, s, r.Replica), exchanged)
		}
		if got := strings.Contains(r.Detail, "was stopped with 11.0 MiB in its writable layer"); got != exchanged || r.State != spec.StateReady || r.Restarts > 1 {
			t.Errorf("%+v", r)
		}
	}
	for what, want := range map[string]int{
		"has written 11.0 MiB over its image, and x-dunnage.disk is 10.0 MiB":                    2,
		"got its stop signal: its writable layer has 11.0 MiB, and it goes on with an empty one": 2,
	} {
		n := 0
		evs, _ := s.loop.events.after(0)
		for _, e := range evs {
			if strings.Contains(e.Message, what) {
				n++
			}
		}
		if n != want {
			t.Errorf("%d events say %q, want %d", n, what, want)
		}
	}
}

// TestOutgrownAlone: where no other can run beside it, the replica is stopped and
// comes back, and one that is never restarted is only told of.
func TestOutgrownAlone(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*spec.Service)
		empty  bool
		detail string
	}{
		"stop-first":    {func(v *spec.Service) { v.Update.Order = spec.StopFirst }, true, "was stopped with 11.0 MiB"},
		"never again":   {func(v *spec.Service) { v.Restart.Mode = spec.RestartNo }, false, "it goes on, since its restart is no"},
		"left when ill": {func(v *spec.Service) { v.Unhealthy = spec.UnhealthyKeep }, true, "was stopped with 11.0 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			s := bounded(t, tc.change)
			r := status(t, s, "web").Replicas[0]
			s.w.WriteLayer(r.Replica, 11*mib)
			s.live(time.Minute, time.Second)
			after := status(t, s, "web").Replicas
			if len(after) != 1 || !strings.Contains(after[0].Detail, tc.detail) || after[0].State != spec.StateReady {
				t.Errorf("%+v", after)
			}
			if got := written(t, s, r.Replica) < mib; got != tc.empty || len(s.w.Violations) > 0 {
				t.Errorf("empty %v, want %v; %v", got, tc.empty, s.w.Violations)
			}
		})
	}
}

// TestFillsAtOnce: a service that fills its layer again and again is started
// later each time, and one of its replicas serves all the while.
func TestFillsAtOnce(t *testing.T) {
	s := bounded(t, func(*spec.Service) {})
	id := status(t, s, "web").Replicas[0].Replica
	for range 600 {
		s.w.WriteLayer(id, 11*mib)
		s.live(time.Second, 500*time.Millisecond)
		if s.w.Served("shop", "web") < 1 {
			t.Fatalf("nothing serves: %s", s.w)
		}
	}
	// Measured every 10 s, without a pause it would be replaced 40 times or more.
	if n := status(t, s, "web").Replicas[0].Restarts; n < 3 || n > 20 {
		t.Errorf("replaced %d times in ten minutes", n)
	}
}

// TestAllFillAtOnce: when all replicas of a service fill their layers again and
// again, each has its turn, the one that stands in for the others too, one at a
// time, and none writes on for longer than the turns of the others take.
func TestAllFillAtOnce(t *testing.T) {
	const turn = 45 * time.Second // the longest pause before a start, two looks at the layers, drain and start
	for replicas := 1; replicas <= 3; replicas++ {
		s := bounded(t, func(v *spec.Service) { v.Replicas = replicas })
		over := map[string]time.Time{}
		var longest time.Duration
		for range 1200 {
			for _, id := range s.w.Running() {
				size := written(t, s, id) + mib
				s.w.WriteLayer(id, size)
				if size <= 10*mib {
					delete(over, id)
				} else if _, ok := over[id]; !ok {
					over[id] = s.w.Now()
				}
				if at, ok := over[id]; ok {
					longest = max(longest, s.w.Now().Sub(at))
				}
			}
			s.live(time.Second, 500*time.Millisecond)
			if n := s.w.Served("shop", "web"); n < replicas {
				t.Fatalf("%d of %d serve: %s", n, replicas, s.w)
			}
		}
		if limit := time.Duration(replicas+1) * turn; longest > limit || len(s.w.Violations) > 0 {
			t.Errorf("one of %d was over its limit for %s, want at most %s; %v", replicas, longest, limit, s.w.Violations)
		}
	}
}

// TestOutgrownCrash: wherever the agent dies while it exchanges a layer, the next
// one ends it.
func TestOutgrownCrash(t *testing.T) {
	for call := 1; call < 60; call++ {
		s := bounded(t, func(*spec.Service) {})
		id := status(t, s, "web").Replicas[0].Replica
		s.w.WriteLayer(id, 11*mib)
		s.start(call)
		s.live(time.Minute, time.Second)
		if written(t, s, id) >= mib || s.w.Served("shop", "web") != 1 || len(s.w.Violations) > 0 || len(status(t, s, "web").Replicas) != 1 {
			t.Fatalf("crash at call %d: %v\n%s", call, s.w.Violations, s.w)
		}
		s.stop()
	}
}
