package orchestrator

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"dunnage/orchestrator/world"
	"dunnage/spec"
)

// A release whose replicas are healthy and can't be reached goes back; with a
// visitor that says that everything is reached, it would stay.
func TestDeafReleaseGoesBack(t *testing.T) {
	for _, lie := range []world.Lie{world.Truth, world.LieReached} {
		s := &scenario{rng: rand.New(rand.NewPCG(1, 7)), w: world.New(map[string]world.Behaviour{"fast": {}, "deaf": {Deaf: true}})}
		s.w.Lie = lie
		s.start(0)
		for _, image := range []string{"fast", "deaf"} {
			s.deploy(spec.Project{Name: "a", Networks: []spec.Network{{Name: "default"}}, Services: []spec.Service{{
				Name: "web", Replicas: 1, Restart: spec.RestartPolicy{Mode: spec.RestartAlways},
				Update: spec.UpdatePolicy{Order: spec.StartFirst, OnFailure: spec.FailureRollback},
				Ports:  []spec.Port{{Published: 8080, Target: 80, Protocol: spec.TCP}},
				Container: spec.Container{
					Image: image, Networks: []spec.Attachment{{Name: "default"}}, Probes: []spec.Probe{{Kind: spec.ProbeRunning}},
				},
			}}})
			s.live(30*time.Second, 250*time.Millisecond)
		}
		rec, _ := s.loop.state.project("a")
		s.stop()
		if wentBack := rec.Desired == 1 && slices.Contains(rec.Failed, 2); wentBack != (lie == world.Truth) {
			t.Errorf("with %q: release %d is desired, %v failed\n%s", lie, rec.Desired, rec.Failed, s.w)
		}
	}
}

// hasty is a visitor that goes everywhere as soon as it is told.
type hasty struct {
	world.Visits
	asked, vain int
}

func (h *hasty) Watch(targets []spec.VisitTarget) {
	h.Visits.Watch(targets)
	for _, r := range h.Reach() {
		if !r.Absent {
			h.asked++
			if r.Failed > 0 {
				h.vain++
			}
		}
	}
}

// No visit begins before the rules that let it through are committed: its packet
// would be held, or refused.
func TestVisitsBeginAfterTheCommit(t *testing.T) {
	s := &scenario{rng: rand.New(rand.NewPCG(1, 7)), w: world.New(map[string]world.Behaviour{"fast": {}})}
	s.start(0)
	defer func() { s.stop() }()
	v := &hasty{Visits: world.Visits{World: s.w}}
	s.loop.cfg.Visits = v
	for _, name := range []string{"a", "b"} {
		s.deploy(spec.Project{Name: name, Networks: []spec.Network{{Name: "default"}}, Services: []spec.Service{{
			Name: "web", Replicas: 1, Restart: spec.RestartPolicy{Mode: spec.RestartAlways}, Hold: spec.Duration(10 * time.Second),
			Update: spec.UpdatePolicy{Order: spec.StartFirst, OnFailure: spec.FailureRollback},
			Ports:  []spec.Port{{Published: map[string]uint16{"a": 8080, "b": 8081}[name], Target: 80, Protocol: spec.TCP}},
			Container: spec.Container{
				Image: "fast", Networks: []spec.Attachment{{Name: "default"}}, Probes: []spec.Probe{{Kind: spec.ProbeRunning}},
			},
		}}})
		s.live(10*time.Second, 250*time.Millisecond)
	}
	if v.asked == 0 || v.vain > 0 {
		t.Errorf("%d visits, %d of them in vain", v.asked, v.vain)
	}
}

// An operation's visits come often from its beginning, also while no look can
// end because the engine hangs.
func TestVisitsAreOftenWhileTheEngineHangs(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	often := func() bool {
		return slices.ContainsFunc(s.loop.cfg.Visits.Reach(), func(r spec.Reach) bool { return r.Often })
	}
	ask(t, s, published("fast", 0))
	if often() {
		t.Fatal("visits are often though nothing is at work")
	}
	s.w.Hung = true
	if _, err := take(t, s, published("slow", 0), spec.Turn{}); err != nil {
		t.Fatal(err)
	}
	s.loop.Step(t.Context())
	if !often() {
		t.Error("visits are seldom though a deploy is at work")
	}
	s.w.Hung = false
	s.live(time.Minute, time.Second)
	if often() {
		t.Error("visits stay often after the deploy")
	}
}
