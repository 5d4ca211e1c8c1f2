package main

import (
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
