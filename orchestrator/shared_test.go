package orchestrator

import (
	"context"
	"slices"
	"testing"
	"time"

	"dunnage/orchestrator/plan"
	"dunnage/orchestrator/world"
	"dunnage/spec"
)

// sharing is a project whose service is also in a network called proxy.
func sharing(name, service string) spec.Project {
	p := one(name, "fast")
	p.Networks = append(p.Networks, spec.Network{Name: "proxy", Shared: "proxy"})
	p.Services[0].Name = service
	p.Services[0].Container.Networks = append(p.Services[0].Container.Networks, spec.Attachment{Name: "proxy"})
	return p
}

// Projects that name the same network are in one, know each other's services
// there, and leave it one by one.
func TestSharedNetwork(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	for _, p := range []spec.Project{sharing("front", "gate"), sharing("shop", "web")} {
		if op := ask(t, s, p); op.State != spec.OperationDone {
			t.Fatalf("%+v", op)
		}
	}
	networks := func() (ids []string) {
		for _, n := range s.loop.routing.Load().Networks {
			ids = append(ids, n.ID)
		}
		return ids
	}
	if got := networks(); !slices.Equal(got, []string{"front_default", "proxy", "shop_default"}) {
		t.Errorf("networks: %v", got)
	}
	known := func(project string) (names []string) {
		d := s.loop.state.desired()
		p, _ := d.Project(project)
		for _, n := range plan.Endpoint(d, p, p.Release.Project.Services[0], spec.ReplicaRecord{}).Names {
			names = append(names, n.Names...)
		}
		return names
	}
	if got := known("front"); !slices.Equal(got, []string{"gate", "web"}) {
		t.Errorf("front knows %v", got)
	}
	if got := known("shop"); !slices.Equal(got, []string{"web", "gate"}) {
		t.Errorf("shop knows %v", got)
	}
	s.answer(func(ctx context.Context) {
		if _, err := s.loop.Change(ctx, "front", spec.ChangeRequest{Kind: "down"}); err != nil {
			t.Error(err)
		}
	})
	s.live(time.Minute, time.Second)
	if got := networks(); !slices.Equal(got, []string{"proxy", "shop_default"}) {
		t.Errorf("networks: %v", got)
	}
	if got := known("shop"); !slices.Equal(got, []string{"web"}) {
		t.Errorf("shop knows %v", got)
	}
	if len(s.w.Violations) > 0 || s.w.Served("shop", "web") != 1 {
		t.Errorf("%v", s.w.Violations)
	}
}

// A release that drops a network and fails leaves it to the one that is back,
// and to the replicas that serve meanwhile.
func TestDroppedNetworkComesBack(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	if op := ask(t, s, sharing("shop", "web")); op.State != spec.OperationDone {
		t.Fatalf("%+v", op)
	}
	bad := one("shop", "crashing")
	bad.Services[0].Update.Order = spec.StopFirst
	if op := ask(t, s, bad); op.State != spec.OperationRolledBack {
		t.Fatalf("%+v", op)
	}
	s.live(time.Minute, time.Second)
	if s.w.Served("shop", "web") != 1 {
		t.Errorf("the release that is back doesn't serve: %s", s.w)
	}
	good := one("shop", "fast")
	good.Services[0].Container.Environment = []string{"V=2"}
	for range 2 { // the first still has the old replica, the second nothing of it
		if op := ask(t, s, good); op.State != spec.OperationDone {
			t.Fatalf("%+v", op)
		}
		good.Services[0].Container.Environment = []string{"V=3"}
	}
	if rec, _ := s.loop.state.project("shop"); len(rec.Networks) != 1 {
		t.Errorf("networks: %+v", rec.Networks)
	}
}
