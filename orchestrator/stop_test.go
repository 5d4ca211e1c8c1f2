package orchestrator

import (
	"testing"
	"time"

	"dunnage/orchestrator/world"
	"dunnage/spec"
)

// Who stops or starts a service waits for that one, not for a neighbour that
// dies again and again.
func TestStopWaitsForItsServicesOnly(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	p := valid("shop", "fast")
	mad := p.Services[0]
	mad.Name, mad.Container.Image = "mad", "crashing"
	p.Services = append([]spec.Service{mad}, p.Services...)
	ask(t, s, p)
	for _, kind := range []string{"stop", "start"} {
		op, err := request(s, "shop", spec.ChangeRequest{Kind: kind, Services: []string{"web"}})
		if err != nil {
			t.Fatal(err)
		}
		if op = pass(t, s, op.ID, time.Minute); op.State != spec.OperationDone {
			t.Errorf("%s: %+v", kind, op)
		}
	}
}
