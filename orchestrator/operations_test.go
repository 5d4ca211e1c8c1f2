package orchestrator

import (
	"testing"
	"time"

	"dunnage/spec"
)

// at is a clock that stands still.
type at struct{ Clock }

func (at) Now() time.Time { return time.Date(2026, 1, 1, 12, 0, 0, int(time.Millisecond), time.UTC) }

// clockAt is a clock that the test moves.
type clockAt struct {
	Clock
	at *time.Time
}

func (c clockAt) Now() time.Time { return *c.at }

type later struct{ at }

func (c later) Now() time.Time { return c.at.Now().Add(20 * time.Millisecond) }

// What waited for its turn isn't said to have rolled all that time.
func TestTimeInTheQueueIsNotRolling(t *testing.T) {
	now := at{}.Now()
	o := newOperations(clockAt{at: &now})
	first := o.begin("shop", "deploy", "", spec.OperationRolling)
	second, err := o.take("shop", "deploy", spec.Turn{Wait: true}, spec.OperationPulling)
	if err != nil {
		t.Fatal(err)
	}
	now = now.Add(40 * time.Second)
	o.change(first, func(op *operation) { op.State = spec.OperationDone })
	if got, want := atWork(o.copyOf(second), now), "deploy, waiting for 40s"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	o.change(second, func(op *operation) { op.State, op.Release = spec.OperationRolling, 10 })
	now = now.Add(3 * time.Second)
	if got, want := atWork(o.copyOf(second), now), "deploy of release 10, rolling for 3s"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// The first operation of an agent isn't taken for that of the agent before,
// which began in the same second.
func TestOperationsOfTwoAgents(t *testing.T) {
	a := newOperations(at{}).begin("shop", "deploy", "", spec.OperationPulling)
	b := newOperations(later{}).begin("shop", "deploy", "", spec.OperationPulling)
	if a.ID == b.ID {
		t.Errorf("both are %s", a.ID)
	}
}
