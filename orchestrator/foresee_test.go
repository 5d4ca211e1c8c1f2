package orchestrator

import (
	"slices"
	"strings"
	"testing"
	"time"

	"dunnage/orchestrator/world"
	"dunnage/spec"
)

// What plan says of the rules and connections is what the deploy then does.
func TestPreviewIsTrue(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	const drain = 20 * time.Second
	if op := ask(t, s, published("fast", drain)); op.State != spec.OperationDone {
		t.Fatalf("%+v", op)
	}
	s.live(10*time.Second, time.Second) // what the scenario itself has opened ends
	for range 3 {
		s.w.Traffic(9 * time.Second)
	}
	s.quiet = true
	said := preview(t, s, published("slow", drain))
	if w := said.Services[0]; said.Draining != 3 || w.Draining != 3 || w.Gap != "none: start-first" || said.Rules.Added == 0 {
		t.Errorf("%+v", said)
	}
	op, err := take(t, s, published("slow", drain), spec.Turn{})
	if err != nil {
		t.Fatal(err)
	}
	pass(t, s, op.ID, time.Minute)
	s.live(2*time.Minute, time.Second)
	r, _ := newest(t, s)
	if r.Rules != said.Rules.RuleChange || r.Drained+r.Cut != said.Draining {
		t.Errorf("said %+v and %d connections, was %+v and %d+%d", said.Rules, said.Draining, r.Rules, r.Drained, r.Cut)
	}
	again := preview(t, s, published("slow", drain))
	if again.Rules.Added+again.Rules.Removed+again.Draining != 0 || again.Services[0].Gap != "" {
		t.Errorf("nothing to do: %+v", again)
	}

	last := published("fast", drain)
	last.Services[0].Update.Order, last.Services[0].Hold = spec.StopFirst, spec.Duration(10*time.Second)
	last.Services[0].Container.Image = "fast"
	w := preview(t, s, last).Services[0]
	if !strings.HasPrefix(w.Gap, "stop-first: web is down for about ") || !strings.HasSuffix(w.Gap, "); connections wait for up to 10s") || !strings.Contains(w.Gap, "its last start took ") {
		t.Errorf("%+v", w)
	}
	last.Services[0].Container.Image = "nowhere"
	if p := preview(t, s, last).Pull; len(p) != 1 || p[0].Ref != "nowhere" || p[0].Known {
		t.Errorf("%+v", p)
	}
	last.Services[0].Container.Image, last.Services[0].Pull = "fast", spec.PullAlways
	if p := preview(t, s, last).Pull; !slices.Equal(p, []spec.ImagePull{{Ref: "fast", Size: 1 << 20, Known: true}}) {
		t.Errorf("%+v", p)
	}
}

func TestGap(t *testing.T) {
	p := spec.ServicePreview{Name: "db", Change: spec.ChangeReplace, Order: spec.StopFirst, From: 3, To: 3}
	s := spec.Service{Name: "db", KeepWarm: spec.Duration(time.Minute), Limits: spec.Limits{Memory: 64 << 20}}
	batches := s
	batches.Update.Parallelism = 1
	held := s
	held.Hold = spec.Duration(5 * time.Second)
	for _, c := range []struct {
		s    spec.Service
		took time.Duration
		want string
	}{
		{s, 0, "stop-first: db is down from its stop until it is ready again; connections are refused"},
		{held, 2800 * time.Millisecond, "stop-first: db is down for about 3s (its last start took 2.8s); connections wait for up to 5s"},
		{batches, 0, "none: stop-first, 1 of 3 at a time while the others serve"},
	} {
		if got := gap(p, c.s, c.took); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
	release := func(image string) spec.Release {
		s := s
		s.Container.Image = image
		return spec.Release{Project: spec.Project{Name: "shop", Services: []spec.Service{s}}}
	}
	prev := release("a")
	if got := keptWarm(&prev, release("b"), p); got != "3 of the old version stay for 1m0s, for a rollback at once: up to 192 MiB of memory more" {
		t.Error(got)
	}
}
