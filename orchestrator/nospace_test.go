package orchestrator

import (
	"slices"
	"strings"
	"testing"
	"time"

	"dunnage/orchestrator/world"
	"dunnage/spec"
)

// What is asked for on a full disk waits for space until the deadline, and says so:
// a release that has run before isn't given up for what has nothing to do with it.
func TestWaitsForSpace(t *testing.T) {
	scale := spec.ChangeRequest{Kind: "scale", Replicas: map[string]int{"web": 3}}
	for name, tc := range map[string]struct {
		request  spec.ChangeRequest
		deadline time.Duration
		full     time.Duration // for how long
		state    spec.OperationState
	}{
		"scale":                 {scale, 0, time.Minute, spec.OperationDone},
		"rollback":              {spec.ChangeRequest{Kind: "rollback"}, 0, time.Minute, spec.OperationDone},
		"restart":               {spec.ChangeRequest{Kind: "restart"}, 0, time.Minute, spec.OperationDone},
		"not beyond a deadline": {scale, 30 * time.Second, time.Minute, spec.OperationRolledBack},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScenario(1, world.Truth)
			defer func() { s.stop() }()
			for _, image := range []string{"fast", "slow"} {
				p := valid("shop", image)
				p.Services[0].Replicas, p.Services[0].Update.Deadline = 2, spec.Duration(tc.deadline)
				if op := ask(t, s, p); op.State != spec.OperationDone {
					t.Fatalf("%+v", op)
				}
			}
			s.w.Full = true
			told := s.problems()
			op, err := request(s, "shop", tc.request)
			if err != nil {
				t.Fatal(err)
			}
			during := pass(t, s, op.ID, tc.full)
			if tc.state == spec.OperationDone {
				if why := status(t, s, "web").Waiting; during.State != spec.OperationRolling || !strings.Contains(why, spec.ErrNoSpace.Error()) {
					t.Errorf("on the full disk: %+v, waiting for %q", during, why)
				}
				if n := s.problems() - told; n == 0 || n > 2 { // one for each replica
					t.Errorf("told of %d problems", n)
				}
			}
			if s.w.Served("shop", "web") != 2 {
				t.Errorf("%d serve", s.w.Served("shop", "web"))
			}
			s.w.Full = false
			s.live(time.Minute, time.Second)
			if op = pass(t, s, op.ID, 0); op.State != tc.state || tc.state != spec.OperationDone && !strings.Contains(op.Cause, spec.ErrNoSpace.Error()) {
				t.Errorf("with space: %+v", op)
			}
			if failed := s.loop.state.projects["shop"].Failed; slices.Contains(failed, 1) || (len(failed) > 0) != (tc.state != spec.OperationDone) {
				t.Errorf("failed releases: %v", failed)
			}
		})
	}
}

// What was stopped and is started on a full disk is tried until it runs, whatever its
// restart policy: ps shows it so, and counts none of the tries as a restart.
func TestStartWaitsForSpace(t *testing.T) {
	for name, mode := range map[string]spec.RestartMode{"no": spec.RestartNo, "on failure": spec.RestartOnFailure, "always": spec.RestartAlways} {
		t.Run(name, func(t *testing.T) {
			s := newScenario(1, world.Truth)
			defer func() { s.stop() }()
			p := valid("shop", "fast")
			p.Services[0].Replicas, p.Services[0].Restart = 1, spec.RestartPolicy{Mode: mode}
			if op := ask(t, s, p); op.State != spec.OperationDone {
				t.Fatalf("%+v", op)
			}
			change := func(kind string) spec.Operation {
				op, err := request(s, "shop", spec.ChangeRequest{Kind: kind})
				if err != nil {
					t.Fatal(err)
				}
				return pass(t, s, op.ID, time.Minute)
			}
			replica := func() spec.ReplicaStatus {
				all := status(t, s, "web").Replicas
				if len(all) != 1 {
					t.Fatalf("replicas: %+v", all)
				}
				return all[0]
			}
			change("stop")
			s.w.Full = true
			change("start")
			if r := replica(); r.State != spec.StateBackoff || !strings.Contains(r.Detail, spec.ErrNoSpace.Error()) || !r.RetryAt.After(s.w.Now()) || r.Restarts != 0 {
				t.Errorf("on the full disk: %+v", r)
			}
			s.w.Full = false
			s.live(time.Minute, time.Second)
			if r := replica(); r.State != spec.StateReady || r.Restarts != 0 {
				t.Errorf("with space: %+v", r)
			}
		})
	}
}
