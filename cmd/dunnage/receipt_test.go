package main

import (
	"strings"
	"testing"
	"time"

	"dunnage/spec"
)

// An operation's receipt is its own: that of an earlier agent's operation with
// the same ID isn't told.
func TestReceiptOf(t *testing.T) {
	now := time.Now()
	op := spec.Operation{ID: "1", Release: 3, Started: now}
	earlier, own := spec.Receipt{Operation: "1", Release: 2, Started: now.Add(-time.Millisecond)}, spec.Receipt{Operation: "1", Release: 3, Started: now}
	if r, ok := receiptOf(op, []spec.Receipt{{Operation: "2", Release: 4, Started: now}, earlier}); ok {
		t.Errorf("another's: %+v", r)
	}
	if r, ok := receiptOf(op, []spec.Receipt{earlier, own}); !ok || r.Release != 3 {
		t.Errorf("%t %+v", ok, r)
	}
	// To promote a canary, or to resume, ends the rollout that a deploy began.
	rollout := spec.Receipt{Operation: "0", Release: 3, Started: now.Add(-time.Minute), Ended: now.Add(time.Second)}
	later := spec.Receipt{Operation: "2", Release: 4, Started: now.Add(2 * time.Second)}
	over := spec.Receipt{Operation: "9", Release: 2, Started: now.Add(-time.Hour), Ended: now.Add(-time.Minute)}
	for _, kind := range []string{"promote", "resume"} {
		op.Kind = kind
		if r, ok := receiptOf(op, []spec.Receipt{later, rollout, over}); !ok || r.Operation != "0" {
			t.Errorf("%s: %t %+v", kind, ok, r)
		}
		if r, ok := receiptOf(op, []spec.Receipt{later, over}); ok {
			t.Errorf("%s: %+v", kind, r)
		}
	}
}

// One visit is one, and a check that finds two things is one check.
func TestCounts(t *testing.T) {
	for sent, want := range map[int]string{1: "receipt 7: 1 visit, 0 failed", 1204: "receipt 7: 1,204 visits, 0 failed"} {
		if got := receiptLine(spec.Receipt{Release: 7, Visits: []spec.VisitTally{{Sent: sent}}}); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if bad, checks := checked([]spec.Finding{{Check: "services"}, {Check: "services"}, {Check: "services", OK: true}, {Check: "rules", OK: true}}); bad != 1 || checks != 2 {
		t.Errorf("%d of %d checks found something wrong, want 1 of 2", bad, checks)
	}
	damaged := spec.Event{Kind: spec.EventRepaired, Project: "shop", Service: "web", Replica: "shop-web-0123abcd-1", Message: "link dun1 of shop-web-0123abcd-1 down; repaired in 5 ms"}
	if got := eventText(damaged); !strings.HasSuffix(got, " shop-web-0123abcd-1: link dun1 down; repaired in 5 ms") {
		t.Errorf("%q", got)
	}
}

// Why a receipt counts no visit is told by how long there was for one.
func TestReceiptWithoutVisits(t *testing.T) {
	asked := []spec.VisitTally{{}}
	for text, r := range map[string]spec.Receipt{
		"none: there was no address that the agent could ask": {Ended: time.Unix(9, 0), Started: time.Unix(0, 0)},
		"none yet": {Visits: asked},
		"none: it was over before a visit had its answer":               {Visits: asked, Started: time.Unix(0, 0), Ended: time.Unix(0, 100e6)},
		"none: no replica took connections for long enough to be asked": {Visits: asked, Started: time.Unix(0, 0), Ended: time.Unix(13, 0)},
	} {
		if got := visitsText(r); got != text {
			t.Errorf("%q, want %q", got, text)
		}
	}
}
