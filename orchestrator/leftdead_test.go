package orchestrator

import (
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"dunnage/orchestrator/world"
	"dunnage/spec"
)

// withDatabase is a project in which web waits for db, which nobody starts again.
func withDatabase(image string) spec.Project {
	p := valid("shop", "fast")
	db := p.Services[0]
	db.Name, db.Ports, db.Container.Image, db.Restart.Mode = "db", nil, image, spec.RestartNo
	p.Services[0].DependsOn = []spec.Dependency{{Service: "db", Condition: spec.DependHealthy}}
	p.Services = []spec.Service{db, p.Services[0]}
	return p
}

// wantDead checks what is said of both services, and when: once.
func wantDead(t *testing.T, s *scenario, since *uint64) {
	t.Helper()
	s.live(10*time.Minute, 5*time.Second)
	st, err := s.loop.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	events := told(s, spec.EventProblem, since)
	for i, start := range []string{"shop-db-", "waits for db to be healthy, which won't come by itself: shop-db-"} {
		service := st.Projects[0].Services[i]
		if service.LeftDead != "db" || !strings.HasPrefix(service.Waiting, start) || !strings.HasSuffix(service.Waiting, "; `dunnage start -p shop db` starts it once more") {
			t.Errorf("%s: %q", service.Name, service.Waiting)
		}
		n := 0
		for _, e := range events {
			if e.Service == service.Name && e.Message == service.Name+": "+service.Waiting {
				n++
			}
		}
		if n != 1 {
			t.Errorf("of %s %d of the events tell: %+v", service.Name, n, events)
		}
	}
}

// What a restart policy leaves dead isn't said to be tried again, nor what waits for
// it; a start that fails again ends as soon as that is clear.
func TestDeployOfWhatIsLeftDead(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	const noTry = "no further try of db, as the restart policy says: `dunnage start -p shop db` makes one"
	op := ask(t, s, withDatabase("crashing"))
	if op.State != spec.OperationFailed || !strings.HasPrefix(op.Cause, "shop-db-") || !strings.HasSuffix(op.Cause, "; there is no earlier release to go back to, and "+noTry) {
		t.Errorf("%+v", op)
	}
	if len(op.Services) != 2 || !strings.HasPrefix(op.Services[1].Detail, "waits for db to be healthy, which won't come by itself: shop-db-") {
		t.Errorf("%+v", op.Services)
	}
	if r, _ := newest(t, s); r.Cause != op.Cause {
		t.Errorf("the receipt says %q", r.Cause)
	}
	var since uint64
	wantDead(t, s, &since)
	op, err := request(s, "shop", spec.ChangeRequest{Kind: "start", Services: []string{"db"}})
	if err != nil {
		t.Fatal(err)
	}
	if op = pass(t, s, op.ID, changePatience/2); op.State != spec.OperationFailed || op.Cause != "not all is as asked for; "+noTry {
		t.Errorf("%+v", op)
	}
	wantDead(t, s, &since)
	if op := ask(t, s, withDatabase("fast")); op.State != spec.OperationDone {
		t.Errorf("%+v", op)
	}
}

// After a boot nobody starts what isn't to be restarted: what waits for it says so,
// and a release that would wait is given up at once.
func TestBootLeavesDead(t *testing.T) {
	own := maps.Clone(images)
	own["db"] = world.Behaviour{}
	s := &scenario{rng: rand.New(rand.NewPCG(1, 7)), w: world.New(own)}
	s.start(0)
	defer func() { s.stop() }()
	p := withDatabase("db")
	if op := ask(t, s, p); op.State != spec.OperationDone {
		t.Fatalf("%+v", op)
	}
	const reboot = 4
	s.w.Damage(reboot, 0)
	var since uint64
	wantDead(t, s, &since)
	op, err := request(s, "shop", spec.ChangeRequest{Kind: "start", Services: []string{"db"}})
	if err != nil {
		t.Fatal(err)
	}
	if op = pass(t, s, op.ID, time.Minute); op.State != spec.OperationDone {
		t.Errorf("%+v", op)
	}
	s.live(time.Minute, time.Second)
	if s.w.Served("shop", "web") != 1 {
		t.Errorf("web doesn't serve\n%s", s.w)
	}

	s.w.Damage(reboot, 0)
	wantDead(t, s, &since)
	own["db"] = images["crashing"]
	p.Services[1].Container.Environment = []string{"V=2"}
	if op, err = take(t, s, p, spec.Turn{}); err != nil {
		t.Fatal(err)
	}
	op = pass(t, s, op.ID, 2*time.Minute)
	if op.State != spec.OperationRolledBack || !strings.HasPrefix(op.Cause, "web waits for db to be healthy, which won't come by itself: shop-db-") {
		t.Errorf("%+v", op)
	}
}

// A receipt that no operation follows says the same, and so it does of what isn't
// accepted.
func TestReceiptOfWhatIsLeftDead(t *testing.T) {
	refused := spec.ServiceStatus{Name: "web", Waiting: "unhealthy", Replicas: []spec.ReplicaStatus{{State: spec.StateUnhealthy, Detail: "accept: exited with 1"}}}
	for want, services := range map[string][]spec.ServiceStatus{
		"the agent keeps trying": {{Name: "db", Waiting: "starting"}, {Name: "web"}},
		"no further try of db, as the restart policy says: `dunnage start -p shop db` makes one":                                         {{Name: "db", Waiting: "dead", LeftDead: "db"}, {Name: "web", Waiting: "waits", LeftDead: "db"}},
		"the agent keeps trying, with no further try of db, jobs, as the restart policy says: `dunnage start -p shop db jobs` makes one": {{Name: "db", Waiting: "dead", LeftDead: "db"}, {Name: "jobs", Waiting: "dead", LeftDead: "jobs"}, {Name: "web", Waiting: "starting"}},
		"no further run of the accept command of web: `dunnage start -p shop web` makes one":                                             {refused},
		"the agent keeps trying, with no further run of the accept command of web: `dunnage start -p shop web` makes one":                {{Name: "db", Waiting: "starting"}, refused},
	} {
		s := newScenario(1, world.Truth)
		now := s.w.Now()
		a := &account{Receipt: spec.Receipt{Project: "shop", Release: 1}, near: now.Add(-returnPatience)}
		s.loop.receipts.judge(a, spec.ProjectRecord{Name: "shop", Desired: 1, Good: 1}, true, services, now)
		if a.Outcome != spec.OperationFailed || a.Cause != "not all is as asked for; "+want {
			t.Errorf("%s: %q", a.Outcome, a.Cause)
		}
		s.stop()
	}
}
