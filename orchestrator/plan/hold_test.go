package plan_test

import (
	"net/netip"
	"testing"
	"time"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// history is a service that is looked at again and again.
type history struct {
	t       *testing.T
	project plan.Project
	now     time.Time
	absent  map[string]plan.Absence
	wake    time.Time
}

func newHistory(t *testing.T, order spec.UpdateOrder, hold time.Duration) *history {
	h := &history{t: t, now: noon}
	s := scene{order: order, wanted: 1}
	good := release(1, "old", s)
	h.project = plan.Project{
		Record: spec.ProjectRecord{
			Name: "p", Desired: 2, Good: 2, Since: noon.Add(-time.Hour),
			Addresses: []spec.ServiceLease{{Service: "web", Network: "p_default", Addr: netip.MustParseAddr("10.9.1.1")}},
		},
		Release: release(2, "new", s), Good: &good,
	}
	web := &h.project.Release.Project.Services[0]
	web.Hold = spec.Duration(hold)
	web.Ports = []spec.Port{{Published: 80, Target: 80, Protocol: spec.TCP}, {Published: 53, Target: 53, Protocol: spec.UDP}}
	return h
}

// look is a look after some time. It returns whether connections are held.
func (h *history) look(after time.Duration, replicas ...plan.Replica) bool {
	h.t.Helper()
	h.now = h.now.Add(after)
	o := plan.Observed{Now: h.now, Replicas: replicas, RulesEqual: true, Absent: h.absent}
	p := plan.Make(plan.Desired{Projects: []plan.Project{h.project}}, o)
	h.absent, h.wake = p.Absent, p.Wake
	held := p.Routing.Services[0].Absent == spec.Hold
	for _, route := range p.Routing.Published {
		if got := route.Absent == spec.Hold; got != (held && route.Protocol == spec.TCP) {
			h.t.Errorf("%s is held: %t, the service: %t", route.Protocol, got, held)
		}
	}
	if until := p.Status[0].Services[0].HeldUntil; held == until.IsZero() {
		h.t.Errorf("held %t, and shown until %s", held, until)
	}
	return held
}

func TestHold(t *testing.T) {
	s := scene{order: spec.StartFirst, wanted: 1}
	up := replica("new", 1, s)
	down := replica("new", 1, s, exited(1, 0), recorded(1))
	t.Run("from the loss on, for its time", func(t *testing.T) {
		h := newHistory(t, spec.StartFirst, 10*time.Second)
		if h.look(0, up) || !h.look(time.Minute, down) || !h.wake.Equal(h.now.Add(10*time.Second)) && !h.wake.Before(h.now.Add(10*time.Second)) {
			t.Fatalf("lost, wake %s", h.wake)
		}
		if !h.look(9*time.Second, down) || h.look(time.Second, down) || h.look(time.Hour, down) {
			t.Error("the end of the hold")
		}
	})
	t.Run("not again after each crash", func(t *testing.T) {
		h := newHistory(t, spec.StartFirst, 10*time.Second)
		h.look(0, up)
		for i := range 30 {
			if held := h.look(time.Second, down); held != (i < 4) {
				t.Errorf("crash %d: held is %t", i, held)
			}
			h.look(0, up)
			h.look(1500*time.Millisecond, up)
		}
		if h.look(11*time.Second, up) || !h.look(time.Second, down) {
			t.Error("it was well for long enough")
		}
	})
	t.Run("a release that comes is waited for", func(t *testing.T) {
		h := newHistory(t, spec.StartFirst, 10*time.Second)
		h.look(0, down)
		if h.look(time.Minute, down) {
			t.Fatal("still held")
		}
		h.project.Record.Since = h.now
		if !h.look(time.Second, down) || h.look(9*time.Second, down) {
			t.Error("the release's own hold")
		}
	})
	t.Run("nor when nothing is to come", func(t *testing.T) {
		h := newHistory(t, spec.StartFirst, 10*time.Second)
		dead := replica("new", 1, s, exited(1, 0), recorded(1), func(r *plan.Replica) { r.Record.Restart.Mode = spec.RestartNo })
		if h.look(0, dead) {
			t.Error("what isn't started again")
		}
		job := replica("new", 1, s, exited(0, 0), recorded(0), func(r *plan.Replica) { r.Record.Restart.Mode = spec.RestartOnFailure })
		if h.look(0, job) {
			t.Error("a job that is done")
		}
		h.project.Record.Stopped = []string{"web"}
		if h.look(0, down) {
			t.Error("stopped on request")
		}
		h.project.Record.Stopped = nil
		h.project.Release.Project.Services[0].Replicas = 0
		if h.look(0) {
			t.Error("scaled to 0")
		}
		h.project.Release.Project.Services[0].Replicas = 1
		if !h.look(time.Minute) {
			t.Error("scaled up again: it begins anew")
		}
		h.project.Release.Project.Services[0].Hold = 0
		if h.look(0) {
			t.Error("hold 0")
		}
	})
}

// An old replica that is in the way of the new one drains for a part of the
// hold: new connections wait meanwhile.
func TestHeldUpdateDrainsShortly(t *testing.T) {
	s := scene{order: spec.StopFirst, wanted: 1}
	old := replica("old", 1, s, func(r *plan.Replica) { r.Conns = 3 })
	next := replica("new", 1, s, func(r *plan.Replica) { r.Phase, r.Pid, r.Record.Running = spec.PhaseCreated, 0, false })
	for hold, want := range map[time.Duration]time.Duration{8 * time.Second: 2 * time.Second, 0: 10 * time.Second, time.Minute: 10 * time.Second} {
		h := newHistory(t, spec.StopFirst, hold)
		h.project.Record.Good = 1
		p := plan.Make(plan.Desired{Projects: []plan.Project{h.project}}, plan.Observed{Now: noon, Replicas: []plan.Replica{next, old}, RulesEqual: true})
		var got time.Duration
		for _, a := range p.Actions {
			if d, ok := a.(plan.Drain); ok {
				got = d.Until.Sub(noon)
			}
		}
		if got != want {
			t.Errorf("hold %s: drains for %s, want %s", hold, got, want)
		}
	}
}
