package orchestrator

import (
	"slices"
	"strings"
	"testing"
	"time"

	"dunnage/orchestrator/world"
	"dunnage/spec"
)

// A deploy that converges with failures says which, and who allows them.
func TestToleratedFailuresAreTold(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	p := valid("shop", "fast")
	web := &p.Services[0]
	web.Replicas, web.Restart.Mode = 4, spec.RestartNo
	web.Update.MaxFailureRatio, web.Update.Monitor = 0.25, spec.Duration(2*time.Second)
	op, err := take(t, s, p, spec.Turn{})
	if err != nil {
		t.Fatal(err)
	}
	pass(t, s, op.ID, time.Second)
	s.w.Damage(1, 0)
	op = pass(t, s, op.ID, time.Minute)
	want := "1 of 4 failed, tolerated by max_failure_ratio 0.25: shop-web-"
	if op.State != spec.OperationDone || len(op.Services) != 1 || !strings.HasPrefix(op.Services[0].Detail, want) {
		t.Errorf("%+v, want the detail %q", op, want)
	}
	events, _ := s.loop.events.after(0)
	if !slices.ContainsFunc(events, func(e spec.Event) bool { return e.Service == "web" && strings.HasPrefix(e.Message, "web: "+want) }) {
		t.Errorf("no event says so: %+v", events)
	}
}
