package main

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"dunnage/spec"
)

// A way that fails isn't called reachable: it is said when it last was.
func TestWhatTheVisitorFound(t *testing.T) {
	now := time.Date(2026, 11, 22, 3, 0, 7, 0, time.UTC)
	to, other := netip.MustParseAddrPort("198.51.100.7:8080"), netip.MustParseAddrPort("198.51.100.8:8080")
	for want, w := range map[string]spec.ExplainedWay{
		"":                               {OK: true},
		"reachable":                      {OK: true, Reached: &spec.Reach{State: spec.ReachReachable, Asked: now.Add(-4 * time.Second)}},
		"last reached 7s ago":            {Reached: &spec.Reach{State: spec.ReachReachable, Asked: now.Add(-7 * time.Second)}},
		"last reached 9s ago":            {OK: true, Reached: &spec.Reach{State: spec.ReachReachable, Asked: now.Add(-9 * time.Second), Failed: 1, Detail: "connect: timeout"}},
		"unreachable: connect: timeout":  {Reached: &spec.Reach{State: spec.ReachUnreachable, Detail: "connect: timeout"}},
		"at 198.51.100.8:8080 reachable": {OK: true, Reached: &spec.Reach{VisitTarget: spec.VisitTarget{Addr: other}, State: spec.ReachReachable}},
	} {
		w.Packet.To = to
		if w.Reached != nil && !w.Reached.Addr.IsValid() {
			w.Reached.Addr = to
		}
		if got := (&program{now: func() time.Time { return now }}).visitor(w); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// Where two generations run, each replica is told by a name of its own.
func TestExplainTellsGenerationsApart(t *testing.T) {
	replica := func(id string, state spec.ReplicaState, routed bool) spec.ReplicaStatus {
		return spec.ReplicaStatus{Project: "shop", Service: "web", Replica: id, State: state, Routed: routed}
	}
	e := spec.Explanation{OK: true, Services: []string{"shop/web"}, Verdict: "connections reach them", Replicas: []spec.ReplicaStatus{
		replica("shop-web-0123abcd-1", spec.StateReady, true), replica("shop-web-0123abcd-2", spec.StateReady, true), replica("shop-web-4567cdef-1", spec.StateWarm, false),
	}}
	const want = "shop-web-0123abcd-1: ready\nshop-web-0123abcd-2: ready\nshop-web-4567cdef-1: warm, no rule leads to it\nconnections reach them\n"
	var out bytes.Buffer
	if err := (&program{stdout: &out}).printExplanation(e, false); err != nil || strings.TrimSpace(out.String()) != strings.TrimSpace(want) {
		t.Errorf("%v\n%swant\n%s", err, out.String(), want)
	}
}

// Brief says in a line what the rules of a sticky service come to for a client that
// isn't known.
func TestExplainBriefOfASticky(t *testing.T) {
	way := func(buckets int, maybe bool) string {
		var w spec.ExplainedWay
		add := func(chain, rule, what string) {
			w.Steps = append(w.Steps, spec.TraceStep{Where: "iptables-nft nat DUNNAGE-" + chain, Number: 1, Rule: rule, Owner: spec.OwnerDunnage, What: what, Maybe: maybe})
		}
		for low := range 16 {
			bucket := fmt.Sprintf("B-%d", low)
			add("A-0", "-s x -j DUNNAGE-"+bucket, "goes to DUNNAGE-"+bucket)
			for high := range buckets {
				add(bucket, fmt.Sprintf("-s 0.0.0.%d/0.0.0.240 -j DNAT", 16*high), "sent on to 10.0.0.2:80")
			}
			add(bucket, "-j DNAT", "sent on to 10.0.0.3:80")
		}
		var b strings.Builder
		(&program{}).explainWay(&b, w, true)
		return b.String()
	}
	for buckets, each := range map[int]string{8: "the same share each", 4: "10.0.0.2:80 25 %, 10.0.0.3:80 75 %"} {
		got := way(buckets, true)
		if strings.Count(got, "sent on to") != 1 || !strings.Contains(got, "one of 2 replicas by the client's address, each client always to the same one, "+each+"; `--from ADDRESS` says") {
			t.Errorf("%d buckets: %s", buckets, got)
		}
	}
	if got := way(8, false); strings.Count(got, "sent on to") != 16*9 { // who is known is told in full
		t.Error(got)
	}
}
