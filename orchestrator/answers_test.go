package orchestrator

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"dunnage/orchestrator/world"
	"dunnage/spec"
)

// one is a project of one service.
func one(name, image string) spec.Project {
	return spec.Project{Name: name, Networks: []spec.Network{{Name: "default"}}, Services: []spec.Service{{
		Name: "web", Replicas: 1, Restart: spec.RestartPolicy{Mode: spec.RestartAlways},
		Container: spec.Container{Image: image, Networks: []spec.Attachment{{Name: "default"}}},
	}}}
}

// valid is one as the API takes it.
func valid(name, image string) spec.Project {
	p := one(name, image)
	p.Services[0].Update.Order = spec.StartFirst
	p.Services[0].Container.Probes = []spec.Probe{{Kind: spec.ProbeRunning}}
	return p
}

// ask deploys p, lets the world live for a while and returns the operation.
func ask(t *testing.T, s *scenario, p spec.Project) spec.Operation {
	t.Helper()
	op := s.loop.ops.begin(p.Name, "deploy", "", spec.OperationPulling)
	s.answer(func(ctx context.Context) {
		if err := s.loop.deploy(ctx, op, spec.DeployRequest{Project: p}); err != nil {
			s.loop.end(op, spec.OperationFailed, plain(err), nil)
		}
	})
	s.live(time.Minute, time.Second)
	now, err := s.loop.Operation(t.Context(), op.ID)
	if err != nil {
		t.Fatal(err)
	}
	return now
}

// A failed rollout keeps what the replica wrote, though it is removed.
func TestFailedOperationTellsWhatTheReplicaWrote(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	if op := ask(t, s, one("shop", "fast")); op.State != spec.OperationDone || op.Replica != "" || op.Log != nil {
		t.Fatalf("a good one: %+v", op)
	}
	op := ask(t, s, one("shop", "crashing"))
	other := func(line string) bool { return line != "dies with 1" }
	if op.State != spec.OperationRolledBack || len(op.Log) == 0 || slices.ContainsFunc(op.Log, other) || !strings.HasPrefix(op.Cause, op.Replica+" exited with code 1") {
		t.Errorf("a crashing one: %+v", op)
	}
	instances, err := s.w.Instances(t.Context())
	if err != nil || slices.ContainsFunc(instances, func(i spec.Instance) bool { return i.ID == op.Replica }) {
		t.Errorf("%s is there still: %v, %v", op.Replica, instances, err)
	}
	// The same content again has the same log, but it failed anew.
	again := ask(t, s, one("shop", "crashing"))
	if again.State != spec.OperationRolledBack || again.Replica != op.Replica || !slices.Equal(again.Log, op.Log) {
		t.Errorf("the same again: %q, first %q: %+v", again.Log, op.Log, again)
	}
}

func TestImageThatIsNotToBeHad(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	op := ask(t, s, one("shop", "fas"))
	if op.State != spec.OperationFailed || op.Release != 0 || strings.Contains(op.Cause, "\n") {
		t.Errorf("%+v", op)
	}
	for _, want := range []string{"image fas: not stored here (did you mean fast?), and ", "`dunnage image pull fas`", "`dunnage image load FILE`"} {
		if !strings.Contains(op.Cause, want) {
			t.Errorf("%q lacks %q", op.Cause, want)
		}
	}
}

func TestNearImage(t *testing.T) {
	stored := []spec.Image{{Ref: "docker.io/library/nginx:1.27"}, {Ref: "example.org/team/hello:v1"}, {Ref: "example.org/team/hello:v2"}}
	for ref, want := range map[string]string{
		"hello:v1":                  "example.org/team/hello:v1",
		"example.org/team/helo:v2":  "example.org/team/hello:v2",
		"nginx":                     "docker.io/library/nginx:1.27",
		"nginx:alpine":              "docker.io/library/nginx:1.27",
		"127.0.0.1:5000/postgres:1": "",
	} {
		if got := nearImage(ref, stored); got != want {
			t.Errorf("%s: %q, want %q", ref, got, want)
		}
	}
	if got := nearImage("nginx", nil); got != "" {
		t.Errorf("out of nothing: %q", got)
	}
}

func TestUnknownProject(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	check := func(name, want string) {
		t.Helper()
		_, err := s.loop.Releases(t.Context(), name)
		if !errors.Is(err, spec.ErrNotFound) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	check("shop", "there is none here yet")
	ask(t, s, one("shop", "fast"))
	ask(t, s, one("blog", "slow"))
	check("shp", "did you mean shop? Projects here: blog, shop")
	check("payments", "projects here: blog, shop")
}

// The images of a release are told as people call it, not as the engine's lease.
func TestImageUsers(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	ask(t, s, one("shop", "fast"))
	ask(t, s, one("shop", "slow"))
	var users []string
	for _, names := range s.loop.ImageUsers() {
		users = append(users, names...)
	}
	if slices.Sort(users); !slices.Equal(users, []string{"shop release 1", "shop release 2"}) {
		t.Errorf("%q", users)
	}
}

// New logging options alone replace nothing, and a deploy says whom they don't
// reach.
func TestNewLoggingSaysWhomItReaches(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	with := func(image string, size int64) spec.Project {
		p := valid("shop", image)
		p.Services[0].Logging.MaxSize = size
		return p
	}
	if op := ask(t, s, with("fast", 0)); op.State != spec.OperationDone || len(op.Warnings) != 0 {
		t.Fatalf("the first: %+v", op)
	}
	before := s.w.Running()
	op := ask(t, s, with("fast", 1<<20))
	want := "service web: its new logging options hold for replicas created from now on; `dunnage restart -p shop web` replaces those that run"
	if op.State != spec.OperationDone || !slices.Equal(op.Warnings, []string{want}) {
		t.Errorf("other logging: %+v", op)
	}
	if after := s.w.Running(); !slices.Equal(before, after) {
		t.Errorf("replaced: %v, then %v", before, after)
	}
	if op := ask(t, s, with("slow", 2<<20)); op.State != spec.OperationDone || len(op.Warnings) != 0 {
		t.Errorf("with another image: %+v", op)
	}
}

// history keeps why a release failed, over a restart of the agent, until it is
// dropped.
func TestHistoryKeepsCauses(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	causes := func() (out []string) {
		t.Helper()
		releases, err := s.loop.Releases(t.Context(), "shop")
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range releases {
			out = append(out, r.Cause)
			if (r.Cause != "") != (r.State == spec.ReleaseFailed) {
				t.Errorf("release %d, %s: cause %q", r.Number, r.State, r.Cause)
			}
		}
		return out
	}
	ask(t, s, one("shop", "fast"))
	op := ask(t, s, one("shop", "crashing"))
	s.start(0)
	if got := causes(); len(got) != 2 || got[0] == "" || !strings.HasPrefix(op.Cause, got[0]) {
		t.Errorf("%q, want the beginning of %q", got, op.Cause)
	}
	for range spec.DefaultKeepReleases {
		ask(t, s, one("shop", "fast"))
		ask(t, s, one("shop", "slow"))
	}
	if rec, _ := s.loop.state.project("shop"); len(rec.Causes) > 0 {
		t.Errorf("causes of dropped releases: %v", rec.Causes)
	}
}
