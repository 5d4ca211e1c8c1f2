package e2e

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"dunnage/api"
	"dunnage/spec"
	"dunnage/test/load"
)

// kept is a hello whose old release stays warm. What the agent's own visits find
// is another test's: they give up after a second, which a busy machine takes.
func kept(version, warm string) string {
	return strings.Replace(hello(version, 2, ""), "drain: 1s", "drain: 1s\n      keep_warm: "+warm, 1)
}

// warm lists the replicas that are warm, once there are n of them.
func (h *host) warm(n int) []spec.ReplicaStatus {
	h.t.Helper()
	var out []spec.ReplicaStatus
	h.eventually(30*time.Second, fmt.Sprintf("%d replicas are warm", n), func() error {
		out = nil
		for _, r := range h.ps() {
			if r.State == spec.StateWarm && !r.WarmUntil.IsZero() {
				out = append(out, r)
			}
		}
		if len(out) != n {
			return errors.New("not yet")
		}
		return nil
	})
	return out
}

// A rollback to what is warm is one swap, also after a start of the agent or a
// release that failed, and when the time is over nothing of it is left.
func TestWarmRollback(t *testing.T) {
	h := newHost(t)
	h.mustDeploy(kept("v1", "10m"))
	n := rounds(2, 20)
	var worst time.Duration
	rep := h.under(8080, load.Config{Rate: 300}, func() {
		for i := range n {
			h.mustDeploy(kept("v2", "10m"))
			before := h.warm(2)
			if i == 0 {
				killAgent(h)
				h.start()
				if after := h.warm(2); pids(after) != pids(before) || !after[0].WarmUntil.Equal(before[0].WarmUntil) {
					t.Errorf("after a start of the agent: %+v, before: %+v", after, before)
				}
				broken := strings.Replace(kept("v2", "10m"), ":v2", ":v2\n    entrypoint: [/hello, -listen, nowhere]", 1)
				if r := h.deploy(broken); r.code != 3 || !strings.Contains(r.stderr, "2 replicas of release 1, which are warm, stay until") || strings.Contains(r.stderr, "so that a rollback to it is one swap") {
					t.Errorf("a release that fails: %+v", r)
				}
				if after := h.warm(2); pids(after) != pids(before) || !after[0].WarmUntil.Equal(before[0].WarmUntil) {
					t.Errorf("after a release that failed: %+v, before: %+v", after, before)
				}
				if text := h.must("ps", "-p", "hello"); strings.Count(text, " warm 9m ") != 2 {
					t.Errorf("ps says\n%s", text)
				}
			}
			h.must("rollback", "-p", "hello")
			worst = max(worst, h.swapped())
			if after := h.ready(2); pids(after) != pids(before) {
				t.Errorf("went back to %s, want what was warm, %s", pids(after), pids(before))
			}
		}
	})
	row(t, "warm rollback", "≤ 50 ms from the request to the commit, 0 failed",
		fmt.Sprintf("%.1f ms at most of %d, %d of %d failed", float64(worst.Microseconds())/1000, n, rep.Failed, rep.Asked),
		rep.Failed == 0 && (worst <= 50*time.Millisecond || soakFile == "" && worst <= time.Second)) // the figure is the soak's: a test may run beside others
	h.mustDeploy(kept("v2", "2s"))
	h.warm(2)
	h.clean(h.ready(2))
	h.answers(8080, "version v2")
}

// What was warm and hangs takes no connection, though its last probe went well.
func TestWarmRollbackToWhatHangs(t *testing.T) {
	h := newHost(t)
	h.mustDeploy(kept("v1", "10m"))
	h.mustDeploy(kept("v2", "10m"))
	hung := h.warm(2)
	h.underLoad(8080, func() {
		for _, r := range hung {
			if err := syscall.Kill(r.Pid, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
		}
		if r := h.run(nil, "rollback", "-p", "hello"); r.code != 0 || strings.Count(r.stderr, " was warm, but doesn't answer (") != 2 {
			t.Errorf("rollback: %+v", r)
		}
		for _, r := range h.ready(2) {
			if r.Pid == hung[0].Pid || r.Pid == hung[1].Pid {
				t.Errorf("%+v hung", r)
			}
		}
	})
	h.answers(8080, "version v1")
	h.clean(h.ready(2))
}

// swapped is how long the last rollback took from the request to the commit.
func (h *host) swapped() time.Duration {
	h.t.Helper()
	client, err := api.Dial(h.agent.URL(), api.Version{})
	if err != nil {
		h.t.Fatal(err)
	}
	var asked, done time.Time
	for _, e := range h.events("hello") {
		switch {
		case e.Kind == spec.EventRelease && strings.HasPrefix(e.Message, "rollback to"):
			op, err := client.Operation(h.t.Context(), e.Operation)
			if err != nil {
				h.t.Fatal(err)
			}
			asked, done = op.Started, time.Time{}
		case e.Kind == spec.EventRouted && done.IsZero():
			done = e.At
		}
	}
	if asked.IsZero() || done.IsZero() {
		h.t.Fatalf("asked %s, done %s: %+v", asked, done, h.events("hello"))
	}
	return done.Sub(asked)
}
