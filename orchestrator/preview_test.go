package orchestrator

import (
	"context"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"dunnage/orchestrator/world"
	"dunnage/spec"
)

// preview asks what a deploy of p would do.
func preview(t *testing.T, s *scenario, p spec.Project) (out spec.Preview) {
	t.Helper()
	var err error
	s.answer(func(ctx context.Context) { out, err = s.loop.Preview(ctx, spec.DeployRequest{Project: p}) })
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// What is replaced only with those it shares a network with says so.
func TestPreviewOfASharedNetwork(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	p := valid("shop", "fast")
	web := p.Services[0]
	for _, name := range []string{"web-proxy", "web-shell"} {
		beside := web
		beside.Name, beside.Ports = name, nil
		beside.Container.Networks, beside.Container.Network, beside.Container.Joins = nil, spec.NetworkService, "web"
		beside.DependsOn = []spec.Dependency{{Service: "web", Condition: spec.DependStarted}}
		p.Services = append(p.Services, beside)
	}
	if op := ask(t, s, p); op.State != spec.OperationDone {
		t.Fatalf("%+v", op)
	}
	for changed, want := range map[int][][]string{
		0: {{"environment"}, {"network shared with web"}, {"network shared with web"}},
		1: {{"network shared with web-proxy"}, {"environment"}, {"network shared with web-proxy"}},
	} {
		next := p
		next.Services = slices.Clone(p.Services)
		next.Services[changed].Container.Environment = []string{"V=2"}
		for i, got := range preview(t, s, next).Services {
			j := slices.IndexFunc(p.Services, func(s spec.Service) bool { return s.Name == got.Name })
			if got.Change != spec.ChangeReplace || !slices.Equal(got.Changed, want[j]) {
				t.Errorf("%d of %d changed: %+v, want %q", i, changed, got, want[j])
			}
		}
	}
}

// While a rollout is paused, a deploy of the same manifest isn't nothing.
func TestPreviewOfAPausedRollout(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	if op := ask(t, s, valid("shop", "fast")); op.State != spec.OperationDone {
		t.Fatalf("%+v", op)
	}
	op, err := take(t, s, valid("shop", "slow"), spec.Turn{})
	if err != nil {
		t.Fatal(err)
	}
	pass(t, s, op.ID, 500*time.Millisecond)
	if _, err := request(s, "shop", spec.ChangeRequest{Kind: "pause"}); err != nil {
		t.Fatal(err)
	}
	const note = "release 2 is paused (on request): a deploy ends the pause and begins the rollout of release 3, " +
		"which against release 1 is to %s; `dunnage rollout resume -p shop` goes on with release 2"
	for image, does := range map[string]string{"slow": "replace web", "fast": "change nothing"} {
		got := preview(t, s, valid("shop", image))
		if want := fmt.Sprintf(note, does); got.Paused != pausedByHand || !slices.Equal(got.Notes, []string{want}) {
			t.Errorf("%s: %+v, want %q", image, got, want)
		}
	}
}

// Where no service differs from a release that hasn't converged, a deploy makes
// another one, and where it has, none.
func TestPreviewOfAReleaseThatHasNotConverged(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	p := valid("shop", "slow")
	if got := preview(t, s, p); got.To != 1 || len(got.Notes) > 0 {
		t.Errorf("of a new project: %+v", got)
	}
	op, err := take(t, s, p, spec.Turn{Owner: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	pass(t, s, op.ID, 500*time.Millisecond)
	const anew = "no service differs from release 1, but that hasn't converged: a deploy begins its rollout anew, as release 2"
	const busy, unless = "another change is at work: deploy of release 1 by alice, rolling for ", "; until it has ended a deploy is refused, unless --wait or --take-over says otherwise"
	for what, next := range map[string]spec.Project{"": p, "another": valid("shop", "fast")} {
		got := preview(t, s, next)
		if n := len(got.Notes); n == 0 || !strings.HasPrefix(got.Notes[n-1], busy) || !strings.HasSuffix(got.Notes[n-1], unless) || slices.Contains(got.Notes, anew) != (what == "") {
			t.Errorf("while it rolls, of %s: %+v", what, got)
		}
	}
	s.start(0) // who asked is gone
	if got := preview(t, s, p); got.To != 2 || !slices.Equal(got.Notes, []string{anew}) {
		t.Errorf("while nobody waits for it: %+v", got)
	}
	s.live(time.Minute, time.Second)
	if got := preview(t, s, p); got.From != 1 || got.To != 0 || len(got.Notes) > 0 {
		t.Errorf("when it has converged: %+v", got)
	}
	wider := p
	wider.Networks = append(slices.Clone(p.Networks), spec.Network{Name: "spare"})
	if got := preview(t, s, wider); got.To != 2 || !slices.Equal(got.Notes, []string{"only networks differ: a deploy makes release 2, and replaces nothing"}) {
		t.Errorf("with another network: %+v", got)
	}
}

// What somebody has stopped a deploy starts again, and says so before: of a
// service that is the same as of one that changes. One whose profile isn't active
// stays as it is.
func TestPreviewOfAStoppedService(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	p := valid("shop", "fast")
	both := p
	debug := p.Services[0]
	debug.Name = "debug"
	both.Services = []spec.Service{debug, p.Services[0]}
	if op := ask(t, s, both); op.State != spec.OperationDone {
		t.Fatalf("%+v", op)
	}
	changed(t, s, spec.ChangeRequest{Kind: "stop"})
	of := func(p spec.Preview, service string) spec.ServicePreview {
		return p.Services[slices.IndexFunc(p.Services, func(s spec.ServicePreview) bool { return s.Name == service })]
	}
	for _, service := range []string{"debug", "web"} {
		if w := of(preview(t, s, both), service); w.Change != spec.ChangeStart || w.From != 0 || w.To != 1 || !slices.Equal(w.Changed, []string{"stopped on request"}) {
			t.Errorf("as it was: %+v", w)
		}
	}
	next := valid("shop", "slow")
	next.Services[0].Update.Order = spec.StopFirst
	if w := of(preview(t, s, next), "web"); w.Change != spec.ChangeReplace || w.From != 0 || w.Gap != "" {
		t.Errorf("with another image: %+v", w)
	}
	without := spec.DeployRequest{Project: p, Inactive: []string{"debug"}}
	var said spec.Preview
	var err error
	s.answer(func(ctx context.Context) { said, err = s.loop.Preview(ctx, without) })
	if err != nil || of(said, "web").Change != spec.ChangeStart || of(said, "debug").Change != spec.ChangeNone {
		t.Errorf("with the profile of one inactive: %+v, %v", said, err)
	}
	if op := deployRequest(t, s, without); op.State != spec.OperationDone || changeOf(op, "web") != spec.ChangeStart || len(s.w.Running()) != 1 {
		t.Errorf("%v runs after %+v", s.w.Running(), op)
	}
	s.answer(func(ctx context.Context) { said, err = s.loop.Preview(ctx, without) })
	if err != nil || of(said, "web").Change != spec.ChangeNone {
		t.Errorf("once it runs: %+v, %v", said, err)
	}
}

// A new version of a secret is a reason that is told: for who is replaced, for who
// gets it while it runs, and for one that the manifest brings.
func TestPreviewOfSecrets(t *testing.T) {
	s := worldWithKey(t, map[string]world.Behaviour{"web": {}, "live": {}, "api": {}})
	defer func() { s.stop() }()
	p := withKey("api", "live", "web")
	p.Secrets = append(p.Secrets, spec.SecretDeclaration{Name: "own", Store: "own", Origin: spec.OriginManifest})
	p.Services[1].OnSecretChange = "SIGHUP"
	p.Services[0].Container.Secrets = []spec.Secret{{Name: "own", Target: spec.SecretDir + "/own", Mode: 0o400}}
	r := spec.DeployRequest{Project: p, Secrets: map[string]spec.SecretValue{"own": spec.NewSecretValue([]byte("a"))}}
	op := s.loop.ops.begin(p.Name, "deploy", "", spec.OperationPulling)
	s.answer(func(ctx context.Context) {
		if err := s.loop.deploy(ctx, op, r); err != nil {
			t.Error(err)
		}
	})
	s.live(time.Minute, time.Second)
	good := s.loop.cfg.Images
	s.loop.cfg.Images = fullDisk{good} // no renewal comes before the deploy
	setKey(t, s, "two")
	s.loop.cfg.Images = good
	r.Secrets["own"] = spec.NewSecretValue([]byte("b"))
	var out spec.Preview
	var err error
	s.answer(func(ctx context.Context) { out, err = s.loop.Preview(ctx, r) })
	want := []spec.ServicePreview{
		{Name: "api", Change: spec.ChangeReplace, Changed: []string{"secret shop/own 1 -> 2"}},
		{Name: "live", Change: spec.ChangeUpdate, Changed: []string{"secret key 1 -> 2"}},
		{Name: "web", Change: spec.ChangeReplace, Changed: []string{"secret key 1 -> 2"}},
	}
	if err != nil || len(out.Services) != len(want) {
		t.Fatalf("%+v, %v", out, err)
	}
	for i, got := range out.Services {
		j := slices.IndexFunc(want, func(w spec.ServicePreview) bool { return w.Name == got.Name })
		if got.Change != want[j].Change || !slices.Equal(got.Changed, want[j].Changed) {
			t.Errorf("%d: %+v, want %+v", i, got, want[j])
		}
	}
}

// Where no replica is ready, start-first is no promise: who was never good is
// stopped first, and who was stays until a new one is ready.
func TestPreviewWhereNobodyIsReady(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	p := valid("shop", "broken")
	p.Services[0].Container.Probes = []spec.Probe{{Kind: spec.ProbeTCP, Port: 80}}
	p.Services[0].Update.OnFailure = spec.FailureContinue
	ask(t, s, p)
	next := valid("shop", "fast")
	want := "start-first, but no replica of web is ready now, and those of a release that never converged are stopped first; connections are refused until a new one is ready"
	if got := preview(t, s, next).Services[0]; got.Gap != want {
		t.Errorf("%q, want %q", got.Gap, want)
	}
	op, err := take(t, s, next, spec.Turn{TakeOver: true})
	if err != nil {
		t.Fatal(err)
	}
	if op = pass(t, s, op.ID, time.Minute); op.State != spec.OperationDone {
		t.Fatalf("%+v", op)
	}
	if got := preview(t, s, valid("shop", "slow")).Services[0]; got.Gap != "none: start-first" {
		t.Errorf("%q of one that is ready", got.Gap)
	}
}

// Why a service is replaced is said by keys that people write.
func TestChangedKeys(t *testing.T) {
	known, err := os.ReadFile("../docs/compose.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, of := range []reflect.Type{reflect.TypeFor[spec.Service](), reflect.TypeFor[spec.Container]()} {
		for i := range of.NumField() {
			field, _, _ := strings.Cut(of.Field(i).Tag.Get("json"), ",")
			key := manifestKey(field)
			if field != "name" && field != "container" && field != "epoch" && field != "orphan" && !strings.Contains(string(known), "| `"+key+"` |") {
				t.Errorf("%s is told as %q, which docs/compose.md hasn't", field, key)
			}
		}
	}
	old := valid("shop", "fast").Services[0]
	next := old
	next.Container.Image, next.Container.Seccomp, next.Container.AppArmor, next.Drain = "slow", "unconfined", "unconfined", 1
	next.Container.Probes = []spec.Probe{{Kind: spec.ProbeExec, Command: []string{"/check"}}}
	if got := strings.Join(changedKeys(old, next), " "); got != "image healthcheck security_opt x-dunnage.drain" {
		t.Errorf("changed: %s", got)
	}
	next = old
	next.Container.Probes = []spec.Probe{{Kind: spec.ProbeHTTP, Port: 80, Path: "/"}}
	if got := strings.Join(changedKeys(old, next), " "); got != "x-dunnage.probe" {
		t.Errorf("changed: %s", got)
	}
}
