package orchestrator

import (
	"testing"
	"time"

	"dunnage/spec"
)

// at is a clock that stands still.
type at struct{ Clock }

func (at) Now() time.Time { return time.Date(2026, 1, 1, 12, 0, 0, int(time.Millisecond), time.UTC) }

type later struct{ at }

func (c later) Now() time.Time { return c.at.Now().Add(20 * time.Millisecond) }

// The first operation of an agent isn't taken for that of the agent before,
// which began in the same second.
func TestOperationsOfTwoAgents(t *testing.T) {
	a := newOperations(at{}).begin("shop", "deploy", "", spec.OperationPulling)
	b := newOperations(later{}).begin("shop", "deploy", "", spec.OperationPulling)
	if a.ID == b.ID {
		t.Errorf("both are %s", a.ID)
	}
}
