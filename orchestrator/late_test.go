package orchestrator

import (
	"strings"
	"testing"
	"time"

	"dunnage/orchestrator/world"
	"dunnage/spec"
)

// startsForEver finds every process starting.
type startsForEver struct{ checks }

// checks is Health by another name: an embedded field of that name would hide
// the method.
type checks = Health

func (startsForEver) Health(string, time.Time) (spec.Health, string) {
	return spec.HealthStarting, "connection refused"
}

// A replica that isn't ready is told of once a run, with what it is waited for,
// long before its rollout is given up.
func TestLateReplicas(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	s.loop.cfg.Health = startsForEver{s.loop.cfg.Health}
	p := valid("shop", "fast")
	s.deploy(p)
	var since uint64
	if s.live(lateAfter-time.Second, time.Second); len(told(s, spec.EventLate, &since)) > 0 {
		t.Error("told of at once")
	}
	s.live(20*time.Second, time.Second)
	late := told(s, spec.EventLate, &since)
	if len(late) != p.Services[0].Replicas {
		t.Fatalf("%d events: %+v", len(late), late)
	}
	if e := late[0]; e.Service != "web" || !strings.HasSuffix(e.Message, " isn't ready after 10s: connection refused") {
		t.Errorf("%+v", e)
	}
}
