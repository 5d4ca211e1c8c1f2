package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"dunnage/spec"
	"dunnage/test/lab"
)

// hello is a manifest of the example's server.
func hello(version string, replicas int, more string) string {
	return fmt.Sprintf(`name: hello
services:
  web:
    image: example.org/hello:%s
    deploy: {replicas: %d}
    ports: ["8080:80"]
    stop_grace_period: 20s
    x-dunnage:
      probe: {http: {port: 80, path: /healthz}}
      drain: 1s
%s`, version, replicas, more)
}

// A release may listen on another port inside: each replica is asked at its own,
// there and back.
func TestRedeployToAnotherPortInside(t *testing.T) {
	h := newHost(t)
	first := hello("v1", 2, "")
	second := strings.NewReplacer("8080:80", "8080:81", "port: 80,", "port: 81,", ":v1", ":v2\n    entrypoint: [/hello, -listen, ':81']").Replace(first)
	h.mustDeploy(first)
	h.answers(8080, "version v1")
	rep := h.underLoad(8080, func() {
		h.mustDeploy(second)
		h.must("rollback", "-p", "hello")
		h.mustDeploy(second)
	})
	if rep.Versions["v2"] == 0 {
		t.Errorf("nobody met the other release: %s", rep)
	}
	h.answers(8080, "version v2")
}

func TestDeployRedeployRollback(t *testing.T) {
	h := newHost(t)
	h.mustDeploy(hello("v1", 3, ""))
	before := h.ready(3)
	h.answers(8080, "version v1")
	if r := h.deploy(hello("v1", 3, "")); r.code != 0 || !strings.Contains(r.stdout+r.stderr, "unchanged") {
		t.Errorf("deploying the same file again: %+v", r)
	}
	if after := h.ready(3); pids(after) != pids(before) {
		t.Errorf("an unchanged deploy changed processes: %s, then %s", pids(before), pids(after))
	}
	h.mustDeploy(hello("v1", 3, ""), "--force")
	if after := h.ready(3); pids(after) == pids(before) {
		t.Errorf("a forced deploy changed no process: %s", pids(after))
	}
	rep := h.underLoad(8080, func() {
		h.mustDeploy(hello("v2", 3, ""))
		h.answers(8080, "version v2")
		h.must("rollback", "-p", "hello")
		h.answers(8080, "version v1")
	})
	if rep.Versions["v1"] == 0 || rep.Versions["v2"] == 0 {
		t.Errorf("versions that answered: %v", rep.Versions)
	}
	h.clean(h.ready(3))
	h.must("down", "-p", "hello")
	h.clean(nil)
	if _, err := h.get(8080, "/"); err == nil {
		t.Error("the port answers after down")
	}
}

func pids(rs []spec.ReplicaStatus) string {
	var b strings.Builder
	for _, r := range rs {
		fmt.Fprintf(&b, "%s=%d ", r.Replica, r.Pid)
	}
	return b.String()
}

// What is in flight at a redeploy may finish in the time to drain; then it is
// cut, and doesn't keep the old release.
func TestDrainEnds(t *testing.T) {
	h := newHost(t)
	manifest := func(version string) string {
		return strings.Replace(hello(version, 1, ""), "stop_grace_period: 20s", "stop_grace_period: 1s", 1)
	}
	h.mustDeploy(manifest("v1"))
	ask := func(query string) chan error {
		done := make(chan error, 1)
		argv := h.lab.OnClient("curl", "-sS", "-o", "/dev/null", "http://"+h.lab.Host.String()+":8080/download?"+query)
		go func() { done <- exec.CommandContext(t.Context(), argv[0], argv[1:]...).Run() }()
		return done
	}
	long := ask("bytes=360000000&rate=100000") // an hour
	h.eventually(30*time.Second, "it is under way", func() error {
		out, err := lab.Output(t.Context(), h.lab.OnClient("ss", "-Htn", "state", "established", "dport = :8080")...)
		if err == nil && strings.Count(out, "\n") < 1 {
			err = errors.New("no connection")
		}
		return err
	})
	short := ask("bytes=100000&rate=200000")
	h.mustDeploy(manifest("v2"))
	if err := <-short; err != nil {
		t.Errorf("the short one: %v", err)
	}
	select {
	case err := <-long:
		if err == nil {
			t.Error("the long one wasn't cut")
		}
	case <-time.After(time.Minute):
		t.Error("the long one goes on")
	}
	h.clean(h.ready(1))
}

// What doesn't shape a container is changed without a restart.
func TestPortsAndScaleRestartNothing(t *testing.T) {
	h := newHost(t)
	h.mustDeploy(hello("v1", 2, ""))
	before := h.ready(2)
	h.mustDeploy(strings.Replace(hello("v1", 2, ""), "8080:80", "8088:80", 1))
	h.answers(8088, "version v1")
	if _, err := h.get(8080, "/"); err == nil {
		t.Error("the old port still answers")
	}
	if after := h.ready(2); pids(after) != pids(before) {
		t.Errorf("another host port changed processes: %s, then %s", pids(before), pids(after))
	}
	h.must("scale", "-p", "hello", "web=4")
	if after := h.ready(4); !strings.HasPrefix(pids(after), pids(before)) {
		t.Errorf("scaling changed processes: %s, then %s", pids(before), pids(after))
	}
	h.must("scale", "-p", "hello", "web=1")
	h.clean(h.ready(1))
}

func TestStopStart(t *testing.T) {
	h := newHost(t)
	h.mustDeploy(hello("v1", 2, ""))
	h.ready(2)
	h.must("stop", "-p", "hello")
	for _, r := range h.ps() {
		if r.State != spec.StateStopped || r.Pid != 0 {
			t.Errorf("%s is %s with pid %d after stop", r.Replica, r.State, r.Pid)
		}
	}
	if _, err := h.get(8080, "/"); err == nil {
		t.Error("the port answers after stop")
	}
	h.must("start", "-p", "hello")
	h.ready(2)
	h.answers(8080, "version v1")
	before := h.ready(2)
	h.underLoad(8080, func() { h.must("restart", "-p", "hello") })
	for i, r := range h.ready(2) {
		if r.Pid == before[i].Pid {
			t.Errorf("%s wasn't restarted", r.Replica)
		}
	}
}

// hold lets a process of the host listen on the port until the test ends.
func (h *host) hold(port int) {
	h.t.Helper()
	argv := h.lab.OnHost("socat", fmt.Sprintf("TCP-LISTEN:%d,fork,reuseaddr", port), "OPEN:/dev/null")
	holder := exec.Command(argv[0], argv[1:]...)
	if err := holder.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = holder.Process.Kill(); _ = holder.Wait() })
	h.eventually(10*time.Second, "socat listens", func() error {
		out, err := lab.Output(h.t.Context(), h.lab.OnHost("ss", "-Hltn", fmt.Sprintf("sport = :%d", port))...)
		if err == nil && out == "" {
			err = errors.New("not yet")
		}
		return err
	})
}

// What can be seen to fail is refused before anything is touched.
func TestRefusedDeployTouchesNothing(t *testing.T) {
	h := newHost(t)
	h.mustDeploy(hello("v1", 2, ""))
	before := h.ready(2)
	h.hold(9100)
	for name, tc := range map[string]struct{ manifest, want string }{
		"missing image": {
			strings.Replace(hello("v1", 2, ""), "example.org/hello:v1", "127.0.0.1:1/hello:v3", 1),
			"image 127.0.0.1:1/hello:v3: not stored here (did you mean example.org/hello:v1?), and pull 127.0.0.1:1/hello:v3: dial tcp 127.0.0.1:1: connect: connection refused; ",
		},
		"missing bind source":     {hello("v1", 2, "    volumes: [{type: bind, source: /no/such/folder, target: /data}]\n"), "/no/such/folder"},
		"port of a host process":  {strings.Replace(hello("v2", 2, ""), "8080:80", "9100:80", 1), "held by socat"},
		"port of another project": {strings.Replace(hello("v2", 1, ""), "name: hello", "name: other", 1), "project hello"},
		"missing external volume": {hello("v1", 2, "    volumes: [\"data:/data\"]\nvolumes: {data: {external: true}}\n"), "no volume"},
		"unknown key":             {hello("v1", 2, "    prvileged: true\n"), "compose.yaml:"},
		"an empty file":           {"", "compose.yaml"},
		"a tab":                   {"services:\n\tweb: {}\n", "compose.yaml:2"},
	} {
		t.Run(name, func(t *testing.T) {
			r := h.in(t).deploy(tc.manifest)
			if r.code != 1 || !strings.Contains(r.stderr, tc.want) {
				t.Errorf("exit code %d, want 1 and %q:\n%s%s", r.code, tc.want, r.stdout, r.stderr)
			}
			if name == "missing image" { // only the registry knows; plan says that it would be asked
				return
			}
			if r := h.in(t).plan(tc.manifest); r.code != 1 || !strings.Contains(r.stderr, tc.want) {
				t.Errorf("plan: exit code %d, want 1 and %q:\n%s%s", r.code, tc.want, r.stdout, r.stderr)
			}
		})
	}
	after := h.ready(2)
	if pids(after) != pids(before) {
		t.Errorf("processes: %s, then %s", pids(before), pids(after))
	}
	var releases []spec.Release
	if err := json.Unmarshal([]byte(h.must("history", "-p", "hello", "--json")), &releases); err != nil || len(releases) != 1 {
		t.Errorf("%d releases, %v; want 1", len(releases), err)
	}
	h.clean(after)
}

// A service that writes to a volume never has two generations running.
func TestStopFirstWithVolume(t *testing.T) {
	h := newHost(t)
	manifest := func(v string) string {
		return hello(v, 1, "    volumes: [\"data:/data\"]\nvolumes: {data: {}}\n")
	}
	h.mustDeploy(manifest("v1"))
	h.ready(1)
	h.mustDeploy(manifest("v2"))
	h.clean(h.ready(1))
	evs := h.events("hello")
	running := 0
	for _, e := range evs {
		switch e.Kind {
		case spec.EventStarted:
			running++
		case spec.EventExited:
			running--
		}
		if running > 1 {
			t.Fatalf("two writers at %s", e.Message)
		}
	}
	if running != 1 {
		t.Fatalf("events show %d running", running)
	}
}

func TestOrphansStayUntilAsked(t *testing.T) {
	h := newHost(t)
	two := hello("v1", 1, "  side:\n    image: example.org/hello:v1\n    ports: [\"8081:80\"]\n")
	h.mustDeploy(two)
	h.ready(2)
	r := h.deploy(hello("v2", 1, ""))
	if r.code != 0 || !strings.Contains(r.stderr, "--remove-orphans") {
		t.Errorf("deploy without the service: %+v", r)
	}
	h.answers(8081, "version v1")
	h.mustDeploy(hello("v2", 1, ""), "--remove-orphans")
	h.clean(h.ready(1))
}

// A rollback without a number goes to the release that ran before, not to one
// that failed or that somebody has left already.
func TestRollbackSkipsWhatFailed(t *testing.T) {
	h := newHost(t)
	h.mustDeploy(hello("v1", 1, ""))
	h.mustDeploy(hello("v2", 1, ""))
	if r := h.deploy(hello("v2", 1, "    command: [\"-no-such-flag\"]\n")); r.code != 3 {
		t.Fatalf("a broken release: %+v", r)
	}
	h.must("rollback", "-p", "hello")
	h.answers(8080, "version v1")
	var releases []spec.Release
	if err := json.Unmarshal([]byte(h.must("history", "-p", "hello", "--json")), &releases); err != nil {
		t.Fatal(err)
	}
	states := map[int]spec.ReleaseState{}
	for _, r := range releases {
		states[r.Number] = r.State
	}
	if states[1] != spec.ReleaseCurrent || states[2] != spec.ReleaseLeft || states[3] != spec.ReleaseFailed {
		t.Errorf("states of the releases: %v", states)
	}
	if r := h.run(nil, "rollback", "-p", "hello"); r.code != 1 || !strings.Contains(r.stderr, "no other release that ran") {
		t.Errorf("a second rollback: %+v", r)
	}
	h.must("rollback", "-p", "hello", "2")
	h.answers(8080, "version v2")
	h.must("down", "-p", "hello")
	if r := h.run(nil, "rollback", "-p", "hello"); r.code != 0 || !strings.HasPrefix(r.stderr, "warning: release 2 doesn't run any more: the rollback creates 1 replica of web (its last start took ") {
		t.Errorf("back from down: %+v", r)
	}
	h.answers(8080, "version v2")
	h.clean(h.ready(1))
}

// Who stops a service because it does harm and deploys the mended one must not
// see the harmful one again, whatever becomes of the deploy.
func TestDeployDoesNotStartWhatWasStopped(t *testing.T) {
	h := newHost(t)
	h.mustDeploy(hello("v1", 1, ""))
	first := h.ready(1)[0].Replica
	h.must("stop", "-p", "hello")
	if r := h.deploy(hello("v2", 1, "    command: [\"-no-such-flag\"]\n")); r.code != 3 {
		t.Errorf("a broken release: %+v", r)
	}
	h.eventually(30*time.Second, "the service is stopped again", func() error {
		if rs := h.ps(); len(rs) != 1 || rs[0].State != spec.StateStopped {
			return fmt.Errorf("%+v", rs)
		}
		return nil
	})
	h.mustDeploy(hello("v2", 1, ""))
	h.answers(8080, "version v2")
	started := 0
	for _, e := range h.events("hello") {
		if e.Kind == spec.EventStarted && e.Replica == first {
			started++
		}
	}
	if started != 1 {
		t.Errorf("%s was started %d times", first, started)
	}
	h.clean(h.ready(1))
}

// A command line that is killed has only stopped looking: its deploy goes on,
// another one is told who is at work, and may wait for its turn.
func TestDeployOutlivesItsCommand(t *testing.T) {
	h := newHost(t)
	h.mustDeploy(hello("v1", 1, ""))
	watched := h.file("watched.yaml", strings.Replace(hello("v2", 1, ""), "replicas: 1", "replicas: 1, update_config: {monitor: 5s}", 1))
	cmd := exec.Command(h.agent.Program, "deploy", "-f", watched)
	cmd.Env = append(os.Environ(), "DUNNAGE_HOST="+h.agent.URL())
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h.eventually(30*time.Second, "release 2 rolls", func() error {
		if !strings.Contains(h.must("history", "-p", "hello"), "rolling") {
			return errors.New("not yet")
		}
		return nil
	})
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	if r := h.deploy(hello("v1", 1, "")); r.code != 1 || !strings.Contains(r.stderr, "project hello is busy: deploy of release 2 by root, rolling for ") || !strings.Contains(r.stderr, "--wait") {
		t.Errorf("a second deploy: %+v", r)
	}
	h.mustDeploy(hello("v1", 1, ""), "--wait")
	states := map[int]spec.ReleaseState{}
	var releases []spec.Release
	if err := json.Unmarshal([]byte(h.must("history", "-p", "hello", "--json")), &releases); err != nil {
		t.Fatal(err)
	}
	for _, r := range releases {
		states[r.Number] = r.State
	}
	if states[2] != spec.ReleaseRan || states[3] != spec.ReleaseCurrent {
		t.Errorf("states of the releases: %v", states)
	}
	h.answers(8080, "version v1")
	h.clean(h.ready(1))
}
