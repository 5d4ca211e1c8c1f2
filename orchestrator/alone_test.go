package orchestrator

import (
	"slices"
	"strings"
	"testing"
	"time"

	"dunnage/orchestrator/world"
	"dunnage/spec"
)

// restartAlone asks for a restart of replicas by their names and waits for it.
func restartAlone(t *testing.T, s *scenario, names ...string) spec.Operation {
	t.Helper()
	op, err := request(s, "shop", spec.ChangeRequest{Kind: "restart", Services: names})
	if err != nil {
		t.Fatal(err)
	}
	return pass(t, s, op.ID, time.Minute)
}

// begun is when the present runs of web's replicas began, by number.
func begun(t *testing.T, s *scenario) (at []int64) {
	t.Helper()
	for _, r := range status(t, s, "web").Replicas {
		at = append(at, r.Started.UnixNano())
		if r.State != spec.StateReady || r.Restarts != 0 {
			t.Errorf("%+v", r)
		}
	}
	return at
}

// A replica that is named is restarted alone, with another ready in its stead, and
// whatever its policy is: somebody asked for it.
func TestRestartAlone(t *testing.T) {
	for name, edit := range map[string]func(*spec.Service){
		"start-first":         func(*spec.Service) {},
		"kept when unhealthy": func(s *spec.Service) { s.Unhealthy = spec.UnhealthyKeep },
		"stop-first":          func(s *spec.Service) { s.Update.Order = spec.StopFirst },
		"never restarted":     func(s *spec.Service) { s.Restart.Mode = spec.RestartNo },
	} {
		t.Run(name, func(t *testing.T) {
			s := newScenario(1, world.Truth)
			defer func() { s.stop() }()
			p := valid("shop", "slow")
			p.Services[0].Replicas = 3
			edit(&p.Services[0])
			if op := ask(t, s, p); op.State != spec.OperationDone {
				t.Fatalf("%+v", op)
			}
			before := begun(t, s)
			if op := restartAlone(t, s, "web-2"); op.State != spec.OperationDone || op.Release != 0 || len(op.Services) != 1 || op.Services[0].Change != spec.ChangeRestart {
				t.Errorf("%+v\n%s", op, s.w)
			}
			s.live(time.Minute, time.Second)
			after := begun(t, s)
			if len(after) != 3 || after[0] != before[0] || after[1] == before[1] || after[2] != before[2] {
				t.Errorf("runs since: %v, then %v", before, after)
			}
			soFar, _, stopped := strings.Cut(s.w.String(), "signal shop-web-")
			spare := strings.Contains(soFar, "-4\n")
			if alone := name == "stop-first" || name == "never restarted"; !stopped || spare == alone {
				t.Errorf("another in its stead: %t\n%s", spare, s.w)
			}
		})
	}
}

// Several are restarted one after the other: no more than one is away at a time.
func TestRestartAloneInTurn(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	p := valid("shop", "slow")
	p.Services[0].Replicas = 3
	ask(t, s, p)
	before := begun(t, s)
	op, err := request(s, "shop", spec.ChangeRequest{Kind: "restart", Services: []string{"web-1", "shop-web-3"}})
	if err != nil {
		t.Fatal(err)
	}
	for end := s.w.Now().Add(time.Minute); s.w.Now().Before(end) && !op.State.Ended(); {
		s.live(100*time.Millisecond, 100*time.Millisecond)
		ready := 0
		for _, r := range status(t, s, "web").Replicas {
			if r.State == spec.StateReady {
				ready++
			}
		}
		if ready < 3 {
			t.Fatalf("%d ready\n%s", ready, s.w)
		}
		if op, err = s.loop.Operation(t.Context(), op.ID); err != nil {
			t.Fatal(err)
		}
	}
	s.live(time.Minute, time.Second)
	if after := begun(t, s); op.State != spec.OperationDone || len(after) != 3 || after[0] == before[0] || after[1] != before[1] || after[2] == before[2] {
		t.Errorf("%+v: runs since %v, then %v", op, before, after)
	}
}

// Who asks for what can't be restarted alone hears so, and nothing is changed.
func TestRestartAloneRefused(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	p := valid("shop", "fast")
	p.Services = append(p.Services, p.Services[0])
	p.Services[1].Name, p.Services[1].Ports = "db", nil
	ask(t, s, p)
	stop, err := request(s, "shop", spec.ChangeRequest{Kind: "stop", Services: []string{"db"}})
	if err != nil {
		t.Fatal(err)
	}
	pass(t, s, stop.ID, time.Minute)
	for want, names := range map[string][]string{
		"service web-2: not found in project shop; it has ":                {"web-2"},
		"service or replica web-2: not found in project shop; `dunnage ps": {"web-1", "web-2"},
		"db is a service, and others of what is to be restarted are":       {"web-1", "db"},
		"db-1 isn't running, so it can't be restarted alone; ":             {"db-1"},
	} {
		op, err := request(s, "shop", spec.ChangeRequest{Kind: "restart", Services: names})
		if err == nil || !strings.HasPrefix(spec.Text(err), want) {
			t.Errorf("%v: %v, %+v; want %q", names, err, op, want)
		}
	}
	if slices.ContainsFunc(s.loop.state.replicaRecords(), func(r spec.ReplicaRecord) bool { return r.Asked }) {
		t.Error("a refused restart left its mark")
	}
}

// What a restart of some alone has yet to do when another change takes over isn't
// done later: it was said to have failed.
func TestRestartAloneTakenOver(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	p := valid("shop", "slow")
	p.Services[0].Replicas = 3
	p.Services = append(p.Services, p.Services[0])
	p.Services[1].Name, p.Services[1].Ports = "db", nil
	ask(t, s, p)
	before := begun(t, s)
	op, err := request(s, "shop", spec.ChangeRequest{Kind: "restart", Services: []string{"web-1", "web-3"}})
	if err != nil {
		t.Fatal(err)
	}
	stop, err := request(s, "shop", spec.ChangeRequest{Kind: "stop", Services: []string{"db"}})
	if err != nil {
		t.Fatal(err)
	}
	if op, err = s.loop.Operation(t.Context(), op.ID); err != nil || op.State != spec.OperationFailed {
		t.Errorf("%+v, %v", op, err)
	}
	pass(t, s, stop.ID, time.Minute)
	s.live(time.Minute, time.Second)
	if after := begun(t, s); !slices.Equal(after, before) {
		t.Errorf("runs since %v, then %v\n%s", before, after, s.w)
	}
}
