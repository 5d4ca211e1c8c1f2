package orchestrator

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"dunnage/orchestrator/world"
	"dunnage/spec"
)

// damaged is a network that somebody else works on.
type damaged struct {
	*world.World
	hit     bool   // the rules aren't as they were left
	what    string // they say of it
	lacks   string
	insists bool // whoever hits them does it again at once
	applied int
}

func (d *damaged) Apply(ctx context.Context, r spec.Routing) error {
	err := d.World.Apply(ctx, r)
	d.hit = d.insists
	d.applied++
	return err
}

func (d *damaged) Attach(ctx context.Context, e spec.Endpoint) error {
	if d.lacks == e.Replica {
		d.lacks = ""
	}
	return d.World.Attach(ctx, e)
}

func (d *damaged) Attached(ctx context.Context) (some, whole []string, err error) {
	some, whole, err = d.World.Attached(ctx)
	return some, slices.DeleteFunc(slices.Clone(whole), func(id string) bool { return id == d.lacks }), err
}

func (d *damaged) Routed(ctx context.Context, r spec.Routing) ([]netip.Addr, bool, error) {
	named, equal, err := d.World.Routed(ctx, r)
	return named, equal && !d.hit, err
}

func (d *damaged) Damaged(_ context.Context, _ spec.Routing, replicas []string) ([]spec.Damage, error) {
	var out []spec.Damage
	if d.hit {
		out = append(out, spec.Damage{Kind: spec.DamageJump, What: cmp.Or(d.what, "jump gone")})
	}
	for _, id := range replicas {
		out = append(out, spec.Damage{Kind: spec.DamageLink, Replica: id, What: "link of " + id + " gone"})
	}
	return out, nil
}

// told are the events of a kind that a scenario has told of since the last call.
func told(s *scenario, kind spec.EventKind, since *uint64) (out []spec.Event) {
	evs, _ := s.loop.events.after(*since)
	for _, e := range evs {
		*since = e.Seq
		if e.Kind == kind {
			out = append(out, e)
		}
	}
	return out
}

func replicas(n int) spec.Project {
	p := valid("shop", "fast")
	p.Services[0].Replicas = n
	return p
}

// converged is a scenario with a service of two replicas, and its network.
func converged(t *testing.T) (*scenario, *damaged) {
	t.Helper()
	s := newScenario(1, world.Truth)
	t.Cleanup(func() { s.stop() })
	d := &damaged{World: s.w}
	s.loop.cfg.Network = d
	s.deploy(replicas(2))
	s.live(20*time.Second, 100*time.Millisecond)
	if n := s.w.Served("shop", "web"); n != 2 {
		t.Fatalf("%d replicas serve\n%s", n, s.w)
	}
	return s, d
}

// Damage is repaired by the next look, and told once with its name.
func TestRepairIsTold(t *testing.T) {
	s, d := converged(t)
	var since uint64
	if all := told(s, spec.EventRepaired, &since); len(all) > 0 {
		t.Errorf("before any damage, %v", all)
	}
	d.hit = true
	s.loop.Step(t.Context())
	if all := told(s, spec.EventRepaired, &since); len(all) != 1 || all[0].Message != "jump gone; repaired in 0 ms" || d.hit {
		t.Errorf("told %v", all)
	}
	id := s.w.Running()[0]
	d.lacks = id
	s.loop.Step(t.Context())
	all := told(s, spec.EventRepaired, &since)
	if len(all) != 1 || all[0].Replica != id || all[0].Service != "web" || !strings.HasPrefix(all[0].Message, "link of "+id+" gone; repaired in ") {
		t.Errorf("told %v", all)
	}
	s.live(time.Minute, time.Second)
	if all := told(s, spec.EventRepaired, &since); len(all) > 0 {
		t.Errorf("without damage, %v", all)
	}
}

// A swap that fails half way is the agent's own doing.
func TestFailedSwapIsNoDamage(t *testing.T) {
	s, d := converged(t)
	var since uint64
	told(s, spec.EventRepaired, &since)
	s.loop.laid = false // as note has it after a swap that failed
	d.hit = true
	s.loop.Step(t.Context())
	if all := told(s, spec.EventRepaired, &since); len(all) > 0 || d.hit {
		t.Errorf("told %v", all)
	}
	d.hit = true
	s.loop.Step(t.Context())
	if all := told(s, spec.EventRepaired, &since); len(all) != 1 {
		t.Errorf("after a swap that was done, told %v", all)
	}
}

// Who restores his own order at once, again and again, is let have his way for
// a moment, and everybody is told; when he stops, it is repaired and over.
func TestFightIsLeft(t *testing.T) {
	s, d := converged(t)
	var since, warned uint64
	told(s, spec.EventRepaired, &since)
	told(s, spec.EventProblem, &warned)
	repairs := func(during time.Duration) int {
		before := d.applied
		s.live(during, 50*time.Millisecond)
		return d.applied - before
	}
	d.hit, d.insists = true, true
	if n, most := repairs(10*time.Minute), int(10*time.Minute/shortestPause)+2*insistent; n < most/2 || n > most {
		t.Errorf("%d repairs in 10 min, want at most %d", n, most)
	}
	problems := s.loop.status.Load().Problems
	if len(problems) != 1 || !strings.HasPrefix(problems[0], "jump gone: repaired each time, and undone by another program ") || !strings.Contains(problems[0], " times in the last minute; find ") {
		t.Errorf("problems are %q", problems)
	}
	if n := len(told(s, spec.EventProblem, &warned)); n < 9 || n > 11 {
		t.Errorf("warned %d times in 10 min, want once a minute", n)
	}
	if n := len(told(s, spec.EventRepaired, &since)); n > toldEach {
		t.Errorf("told of %d repairs", n)
	}

	// A deploy doesn't wait for the end of a fight, and lets nobody else wait.
	id := s.w.Running()[0]
	d.lacks = id
	s.live(100*time.Millisecond, 50*time.Millisecond)
	if d.lacks != "" {
		t.Error("a replica's link waits for a fight about rules")
	}
	s.deploy(replicas(3))
	s.live(5*time.Second, 50*time.Millisecond)
	if s.w.Served("shop", "web") != 3 {
		t.Errorf("%d replicas serve in a fight", s.w.Served("shop", "web"))
	}

	d.insists = false
	s.live(longestPause, 100*time.Millisecond)
	if d.hit {
		t.Error("not repaired although nobody insists any more")
	}
	s.live(quiet+time.Second, 100*time.Millisecond)
	if problems := s.loop.status.Load().Problems; len(problems) > 0 || len(s.loop.fights) > 0 {
		t.Errorf("the fight is over, and problems are %q", problems)
	}
	all := told(s, spec.EventRepaired, &since)
	if last := all[len(all)-1].Message; last != "jump gone: no longer undone" {
		t.Errorf("at last told %q", last)
	}
	d.hit = true
	if s.loop.Step(t.Context()); d.hit {
		t.Error("the next damage waits for the fight before")
	}
}

// Who comes every few seconds is repaired at once each time, for ever, and told
// of with how often he comes.
func TestFrequentDamageIsRepairedAtOnce(t *testing.T) {
	s, d := converged(t)
	var since, warned uint64
	told(s, spec.EventRepaired, &since)
	told(s, spec.EventProblem, &warned)
	for range 100 {
		d.hit = true
		if s.loop.Step(t.Context()); d.hit {
			t.Fatal("the repair waits")
		}
		s.live(8*time.Second, time.Second)
	}
	problems := s.loop.status.Load().Problems
	if len(problems) != 1 || !strings.Contains(problems[0], "jump gone: repaired each time, and undone by another program 8 times in the last minute; find ") {
		t.Errorf("problems are %q", problems)
	}
	if n := len(told(s, spec.EventRepaired, &since)); n != 100 {
		t.Errorf("told of %d repairs, want all", n)
	}
	if n := len(told(s, spec.EventProblem, &warned)); n < 11 || n > 14 {
		t.Errorf("warned %d times in 13 min, want once a minute", n)
	}
}

// Damage done by hand never waits: neither the same again and again, nor
// different ones in turn.
func TestRepairsAtOnce(t *testing.T) {
	s, d := converged(t)
	hit := func(what string) {
		t.Helper()
		d.hit, d.what = true, what
		if s.loop.Step(t.Context()); d.hit {
			t.Fatalf("the repair of %q waits", what)
		}
	}
	for range 100 {
		hit("nat flushed")
		s.w.Advance(shortestPause)
	}
	for i := range 140 {
		hit("all flushed")
		s.w.Advance(shortestPause / 2)
		hit([]string{"nat flushed", "jump moved", "jump doubled"}[i%3])
		s.w.Advance(shortestPause / 2)
	}
}

// What others did while there was no agent is told by the next one, as a repair
// like any other. What an agent leaves, an orderly stop and a reboot are none.
func TestDamageWithoutAnAgentIsTold(t *testing.T) {
	for name, c := range map[string]struct {
		meanwhile func(w *world.World)
		want      string
		counted   uint64
	}{
		"nothing": {func(*world.World) {}, "", 0},
		"flushed": {func(w *world.World) { w.Damage(0, 0) }, "rules flushed; repaired in 0 ms", 1},
		"reboot":  {func(w *world.World) { w.Damage(4, 0) }, "", 0},
		"a death": {func(w *world.World) { w.Damage(1, 0) }, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScenario(1, world.Truth)
			t.Cleanup(func() { s.stop() })
			s.deploy(replicas(2))
			s.live(20*time.Second, 100*time.Millisecond)
			c.meanwhile(s.w)
			s.start(0)
			s.live(20*time.Second, 100*time.Millisecond)
			var since uint64
			all := told(s, spec.EventRepaired, &since)
			if n := s.loop.Counted().Repairs[spec.DamageChain]; c.want == "" && len(all) > 0 || c.want != "" && (len(all) != 1 || all[0].Message != c.want) || n != c.counted {
				t.Errorf("told %v, counted %d", all, n)
			}
			if n := s.w.Served("shop", "web"); n != 2 {
				t.Errorf("%d replicas serve\n%s", n, s.w)
			}
		})
	}
}
