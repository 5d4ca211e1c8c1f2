package orchestrator

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"dunnage/orchestrator/world"
	"dunnage/spec"
)

// A canary that waits for somebody's word is known before the deploy does.
func TestTrial(t *testing.T) {
	replace := spec.ServicePreview{Change: spec.ChangeReplace, Order: spec.StartFirst, From: 3, To: 3}
	create := spec.ServicePreview{Change: spec.ChangeCreate, Order: spec.StartFirst, To: 3}
	for _, c := range []struct {
		p      spec.ServicePreview
		canary *spec.Canary
		want   string
	}{
		{replace, nil, ""},
		{replace, &spec.Canary{Replicas: 1, Weight: 10}, "first 1 of 3 with 10 % of the connections, until `dunnage promote -p shop`"},
		{replace, &spec.Canary{Replicas: 5, For: spec.Duration(90 * time.Second)}, "first 3 of 3, for 1m30s, or until `dunnage promote -p shop`"},
		{create, &spec.Canary{Replicas: 1}, ""},
	} {
		if got := trial(c.p, spec.Service{Canary: c.canary}, "shop"); got != c.want {
			t.Errorf("%+v: %q, want %q", c.canary, got, c.want)
		}
	}
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	if op := ask(t, s, valid("shop", "fast")); op.State != spec.OperationDone {
		t.Fatalf("%+v", op)
	}
	next := valid("shop", "slow")
	next.Services[0].Canary = &spec.Canary{Replicas: 1}
	if w := preview(t, s, next).Services[0]; w.Canary != "first 1 of 1, until `dunnage promote -p shop`" {
		t.Errorf("%+v", w)
	}
}

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
	s := spec.Service{Name: "db"}
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
		if got := gap(p, c.s, c.took, ""); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
	if got := joinedGap("none: start-first", []string{"port 8095/tcp goes: connections to it are refused"}); got != "start-first; port 8095/tcp goes: connections to it are refused" {
		t.Error(got)
	}
}

// What clients lose for good is named, whatever the change is called.
func TestLosses(t *testing.T) {
	ports := func(published ...uint16) (out []spec.Port) {
		for _, n := range published {
			out = append(out, spec.Port{Published: n, Target: 80, Protocol: spec.TCP})
		}
		return out
	}
	local := []spec.Port{{HostIP: netip.MustParseAddr("127.0.0.1"), Published: 8095, Target: 80, Protocol: spec.TCP}}
	lan, one := netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("10.1.0.0/16")
	of := func(name string, ports []spec.Port, allow ...netip.Prefix) spec.Service {
		return spec.Service{Name: name, Replicas: 1, Ports: ports, Allow: allow}
	}
	none := of("web", ports(8095))
	none.Replicas = 0
	for name, c := range map[string]struct {
		old  spec.Service
		next []spec.Service
		want []string
	}{
		"nothing":           {of("web", ports(8095), one), []spec.Service{of("web", ports(8095, 8096), lan)}, nil},
		"opened":            {of("web", ports(8095), one), []spec.Service{of("web", ports(8095))}, nil},
		"from one address":  {of("web", local), []spec.Service{of("web", ports(8095))}, nil},
		"no replicas":       {of("web", ports(8095)), []spec.Service{none}, []string{"no replica of web is left: nobody answers for it until it is scaled up"}},
		"removed":           {of("web", ports(8095)), nil, []string{"web is removed: nobody answers for it any more", "port 8095/tcp goes: connections to it are refused"}},
		"renamed":           {of("web", ports(8095)), []spec.Service{of("www", ports(8095))}, []string{"web is removed: nobody answers for it any more", "port 8095/tcp goes over to www"}},
		"another port":      {of("web", ports(8095)), []spec.Service{of("web", ports(8096))}, []string{"port 8095/tcp goes: connections to it are refused"}},
		"one address alone": {of("web", ports(8095)), []spec.Service{of("web", local)}, []string{"port 8095/tcp stays at 127.0.0.1 alone: elsewhere connections are refused"}},
		"first allow list":  {of("web", ports(8095)), []spec.Service{of("web", ports(8095), lan)}, []string{"its ports are closed to clients that aren't on the new allow list"}},
		"narrower":          {of("web", ports(8095), lan), []spec.Service{of("web", ports(8095), one)}, []string{"its ports are closed to clients of 10.0.0.0/8 that the new allow list doesn't have"}},
	} {
		p := spec.ServicePreview{Name: "web", From: 1}
		next := spec.Project{Services: c.next}
		if s, ok := next.Service("web"); ok {
			p.To = s.Replicas
		}
		prev := &spec.Release{Project: spec.Project{Services: []spec.Service{c.old}}}
		if got := losses(p, prev, next); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
		if p.From = 0; losses(p, prev, next) != nil {
			t.Errorf("%s: lost, though nobody was served", name)
		}
	}
}

// A service that was renamed keeps its port under the old name until that is removed.
func TestRenamedServiceKeepsItsPort(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	if op := ask(t, s, published("fast", time.Second)); op.State != spec.OperationDone {
		t.Fatalf("%+v", op)
	}
	next := published("fast", time.Second)
	next.Services[0].Name = "www"
	ask := func(r spec.DeployRequest) (out spec.Preview, err error) {
		s.answer(func(ctx context.Context) { out, err = s.loop.Preview(ctx, r) })
		return out, err
	}
	_, err := ask(spec.DeployRequest{Project: next})
	if err == nil || !strings.Contains(err.Error(), "web isn't in the manifest any more and keeps running: --remove-orphans removes it, and the port goes over") {
		t.Errorf("%v", err)
	}
	said, err := ask(spec.DeployRequest{Project: next, RemoveOrphans: true})
	if err != nil || !slices.ContainsFunc(said.Services, func(p spec.ServicePreview) bool {
		return p.Name == "web" && strings.Contains(p.Gap, "goes over to www")
	}) {
		t.Errorf("%+v, %v", said, err)
	}
}
