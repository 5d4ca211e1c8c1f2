package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"dunnage/spec"
)

func (h *host) stats(args ...string) spec.Stats {
	h.t.Helper()
	var st spec.Stats
	out := h.must(append([]string{"stats", "--json"}, args...)...)
	if err := json.Unmarshal([]byte(out), &st); err != nil {
		h.t.Fatalf("stats: %v\n%s", err, out)
	}
	return st
}

// history are the events that are kept, as `events` prints them.
func (h *host) history(args ...string) (all []spec.Event) {
	h.t.Helper()
	for line := range strings.Lines(h.must(append([]string{"events", "--since", "all", "--json"}, args...)...)) {
		var e spec.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			h.t.Fatalf("events: %v\n%s", err, line)
		}
		all = append(all, e)
	}
	return all
}

// TestNumbers: stats counts what replicas really use, also while containerd hangs,
// and events tells what happened before the agent was killed.
func TestNumbers(t *testing.T) {
	h := newHost(t)
	h.mustDeploy(hello("v1", 2, "    mem_limit: 64m\n"))
	h.ready(2)
	before := h.stats("-p", "hello")
	rep := h.underLoad(8080, func() { time.Sleep(2 * time.Second) })
	after := h.stats("-p", "hello")
	if len(before.Replicas) != 2 || len(after.Replicas) != 2 {
		t.Fatalf("2 replicas run, but stats says %+v, then %+v", before, after)
	}
	var received, sent int64
	for i, r := range after.Replicas {
		b := before.Replicas[i]
		if r.Replica != b.Replica || r.Memory <= 0 || r.Memory > 64<<20 || r.MemoryLimit != 64<<20 || r.Pids < 1 || r.CPU <= b.CPU || r.Started.IsZero() || r.Rates == nil {
			t.Errorf("%+v, and after the load %+v", b, r)
		}
		received, sent = received+r.Received-b.Received, sent+r.Sent-b.Sent
	}
	if least := int64(rep.Asked) * 50; received < least || sent < least {
		t.Errorf("%d bytes received and %d sent in %d requests", received, sent, rep.Asked)
	}
	own := map[string]spec.OwnStats{}
	for _, o := range after.Own {
		own[o.Name] = o
	}
	for name, n := range map[string]int{"agent": 1, "containerd": 1, "shims": 2, "log writers": 2} {
		if o := own[name]; o.Processes != n || o.Memory < 1<<20 || o.Memory > 200<<20 {
			t.Errorf("%s: %+v, want %d with some memory", name, o, n)
		}
	}

	first := h.history("-p", "hello")
	if len(first) == 0 {
		t.Fatal("no event is kept of a deploy")
	}
	killAgent(h)
	cont := h.stopPid(h.containerdPid())
	h.start()
	if st := h.stats(); len(st.Replicas) != 2 || st.Replicas[0].Memory <= 0 || st.Replicas[0].Received <= 0 {
		t.Errorf("an agent that has never heard of containerd says %+v", st)
	}
	second := h.history("-p", "hello")
	cont()
	if len(second) < len(first) || !slices.EqualFunc(first, second[:len(first)], func(a, b spec.Event) bool { return a.Seq == b.Seq && a.Message == b.Message && a.At.Equal(b.At) }) {
		t.Fatalf("before the agent was killed\n%s\nand after that\n%s", told(first), told(second))
	}
	h.ready(2)
	h.must("scale", "-p", "hello", "web=3")
	h.ready(3)
	all := h.history("-p", "hello")
	if !slices.IsSortedFunc(all, func(a, b spec.Event) int { return int(a.Seq) - int(b.Seq) }) || all[len(all)-1].Seq < first[len(first)-1].Seq+1000 {
		t.Errorf("numbers don't go on over the restart:\n%s", told(all))
	}
	if some := h.history("-p", "hello", "--kind", "started", "web-3"); len(some) != 1 || some[0].Kind != spec.EventStarted {
		t.Errorf("the third replica's start: %s", told(some))
	}
	// What the hint after a failure names ends.
	if r, took := h.soon("events", "-p", "hello", "--since", "10m"); r.code != 0 || !strings.Contains(r.stdout, "release 1") {
		t.Errorf("exit code %d after %s: %s%s", r.code, took, r.stdout, r.stderr)
	}
}

func told(events []spec.Event) string {
	var b strings.Builder
	for _, e := range events {
		fmt.Fprintf(&b, "%d %s %s %s\n", e.Seq, e.At.Format(time.RFC3339Nano), e.Kind, e.Message)
	}
	return b.String()
}
