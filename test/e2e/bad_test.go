package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dunnage/internal/testenv"
	"dunnage/spec"
	"dunnage/test/load"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// loadApp loads the program that tests run in containers, in two versions.
func (h *host) loadApp() {
	h.t.Helper()
	var archive bytes.Buffer
	if _, err := archive.ReadFrom(testenv.Archive(h.t, map[string]v1.Image{
		"example.org/app:v1": testenv.AppImage(h.t, "v1"),
		"example.org/app:v2": testenv.AppImage(h.t, "v2"),
	})); err != nil {
		h.t.Fatal(err)
	}
	h.must("image", "load", h.file("app.tar", archive.String()))
}

// app is a manifest of that program, with what more says of the service.
func app(version, command, more string) string {
	return fmt.Sprintf(`name: app
services:
  web:
    image: example.org/app:%s
    command: %s
    ports: ["8080:80"]
    stop_grace_period: 1s
%s
`, version, command, more)
}

const (
	// served is a service whose health is asked over the network.
	served = "    deploy: {replicas: 2}\n" +
		"    x-dunnage: {drain: 100ms, probe: {http: {port: 80, path: /health}, interval: 200ms, retries: 2}}\n"
	// watched must run well for a while before it takes connections.
	watched = "    deploy: {replicas: 2, update_config: {monitor: 3s}}\n"
)

// checked is a service whose health a command says.
func checked(more string, command ...string) string {
	argv, err := json.Marshal(append([]string{"CMD", "/testapp"}, command...))
	if err != nil { // texts
		panic(err)
	}
	return fmt.Sprintf("%s    healthcheck: {test: %s, interval: 200ms, timeout: 1s, retries: 2}\n", more, argv)
}

// badReleases are releases that can't be, one kind each. All but those that
// are refused fail because of one of their replicas, and show what it wrote.
var badReleases = map[string]struct {
	manifest string
	code     int    // of `dunnage deploy`
	cause    string // in its message
	wrote    string // how one of its last lines begins
}{
	"never gets ready":               {app("v2", "[sleep, 1h]", served), 3, "nothing listens on port 80", "ready"},
	"exits at once":                  {app("v2", "[exit-now]", served), 3, "exited with code 64", "testapp: unknown command [exit-now]"},
	"dies while it is watched":       {app("v2", "[exit, '7', 1s]", checked(watched, "exit", "0")), 3, "exited with code 7 while it was watched", ""},
	"check hangs":                    {app("v2", "[tick, 50ms]", checked("    deploy: {replicas: 2}\n", "sleep", "1h")), 3, "healthcheck: no answer within 1s", "tick "},
	"check forks children that stay": {app("v2", "[tick, 50ms]", checked("    deploy: {replicas: 2}\n", "spawn", "20")), 3, "healthcheck: no answer within 1s", "tick "},
	"check prints gigabytes":         {app("v2", "[tick, 50ms]", checked("    deploy: {replicas: 2}\n", "log", "10000000", "1000")), 3, "healthcheck: no answer within 1s", "tick "},
	"program missing":                {app("v2", "[serve]", served+"    entrypoint: [/no/such/program]\n"), 3, "/no/such/program", ""},
	"kernel takes no such value":     {app("v2", "[serve]", served+"    sysctls: {net.ipv4.ip_default_ttl: '999'}\n"), 3, "sysctls: the kernel doesn't take the value for net.ipv4.ip_default_ttl", ""},
	"directory over a file":          {app("v2", "[serve]", served+"    volumes: [{type: bind, source: /srv, target: /testapp, read_only: true}]\n"), 3, "volumes: /srv can't be mounted at /testapp: one is a file and the other a directory", ""},
	"not accepted":                   {app("v2", "[serve]", strings.Replace(served, "drain: 100ms", `drain: 100ms, accept: [/testapp, exit, "5"]`, 1)), 3, "exited with 5", "ready"},
	"out of memory":                  {app("v2", "[alloc, '256']", served+"    mem_limit: 32m\n"), 3, "exited with code 137 (out of memory)", ""},
	"image not to be had":            {strings.Replace(app("v2", "[serve]", served), "example.org/app:v2", "127.0.0.1:1/app:v2", 1), 1, "nothing was changed: service web: image 127.0.0.1:1/app:v2", ""},
	"bind source missing":            {app("v2", "[serve]", served+"    volumes: [{type: bind, source: /no/such/folder, target: /data}]\n"), 1, "/no/such/folder", ""},
	"port of a process":              {strings.Replace(app("v2", "[serve]", served), "8080:80", "9100:80", 1), 1, "held by socat", ""},
	"crashes again and again":        {app("v2", "[exit, '9', 20ms]", served+"    restart: always\n"), 3, "exited with code 9, 3 times in a row", ""},
	"sick canary":                    {app("v2", "[sicken, 1s]", strings.Replace(served, "drain", "canary: {replicas: 1, for: 1m}, max_failed: 1000, drain", 1)), 3, "answered 503", "sick"}, // its own check is to find it, not visits
	"no progress":                    {app("v2", "[tick, 50ms]", "    deploy: {replicas: 2}\n    x-dunnage: {progress_deadline: 2s, probe: {http: {port: 80}, start_period: 1h}}\n"), 3, "no progress for 2s", "tick "},
	"gets sick while it is watched":  {app("v2", "[sicken, 500ms]", watched+"    x-dunnage: {probe: {http: {port: 80, path: /health}, interval: 200ms, retries: 2}}\n"), 3, "answered 503", "sick"},
}

// Whatever is wrong with a release, the one that serves goes on serving: with
// the processes that it had, and without losing a request.
func TestBadReleases(t *testing.T) {
	h := newHost(t)
	h.loadApp()
	h.hold(9100)
	h.mustDeploy(app("v1", "[serve]", served))
	before := h.ready(2)
	rep := h.under(8080, load.Config{Rate: 300}, func() {
		for name, tc := range badReleases {
			t.Run(name, func(t *testing.T) {
				h := h.in(t)
				h.fails(h.deploy(tc.manifest), tc.code, tc.cause, tc.wrote)
				if after := h.ready(2); pids(after) != pids(before) {
					t.Errorf("processes of the good release: %s, then %s", pids(before), pids(after))
				}
			})
		}
		h.pausedAndBack(before)
	})
	if rep.Versions["v1"] == 0 || rep.Versions["v2"] == 0 { // the canary answered
		t.Errorf("versions that answered: %v", rep.Versions)
	}
	h.clean(before)
}

// fails checks what a failed deploy says: the cause in one line, then what the
// replica wrote last, if there is one.
func (h *host) fails(r result, code int, cause, wrote string) {
	h.t.Helper()
	lines := strings.Split(r.stderr, "\n")
	at := slices.IndexFunc(lines, func(l string) bool {
		return strings.HasPrefix(l, "dunnage: ") && strings.Contains(l, cause)
	})
	if r.code != code || at < 0 {
		h.t.Errorf("exit code %d, want %d and a line with %q:\n%s%s", r.code, code, cause, r.stdout, r.stderr)
		return
	}
	shown := func(l string) bool { return strings.HasPrefix(l, "    "+wrote) }
	if wrote != "" && !slices.ContainsFunc(lines[at:], shown) {
		h.t.Errorf("want a last line %q of its log:\n%s", wrote, r.stderr)
	}
}

// pausedAndBack deploys a bad release that is to be left for a look, and goes
// back from it.
func (h *host) pausedAndBack(before []spec.ReplicaStatus) {
	h.t.Helper()
	pause := strings.Replace(served, "replicas: 2", "replicas: 2, update_config: {failure_action: pause}", 1)
	h.fails(h.deploy(app("v2", "[exit-now]", pause)), 3, "is paused: ", "testapp: unknown command [exit-now]")
	h.must("rollback", "-p", "app")
	if after := h.ready(2); pids(after) != pids(before) {
		h.t.Errorf("processes of the good release: %s, then %s", pids(before), pids(after))
	}
}

// What an accept command failed of may be put right outside: to resume the
// rollout, whether it is paused or not, to start the service, or to deploy the same
// again, runs it once more.
func TestAcceptedLater(t *testing.T) {
	h := newHost(t)
	h.loadApp()
	migrated := filepath.Join(h.t.TempDir(), "migrated")
	if err := os.Mkdir(migrated, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(migrated, "log"), []byte("migrating\nno such table\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	accepts := strings.Replace(served, "drain: 100ms", "drain: 100ms, accept: [/testapp, cat, /migrated/log, /migrated/done]", 1) +
		"    volumes: [" + migrated + ":/migrated:ro]\n"
	done := filepath.Join(migrated, "done")
	putRight := func() {
		if err := os.Rename(h.file("done", "yes"), done); err != nil {
			t.Fatal(err)
		}
	}
	for _, again := range [][]string{{"rollout", "resume", "-p", "app"}, {"start", "-p", "app", "web"}} { // with nothing to go back to
		h.fails(h.deploy(app("v1", "[serve]", accepts)), 3, "no further run of the accept command of web: `dunnage start -p app web` makes one", "")
		putRight()
		if r := h.run(nil, again...); r.code != 0 || !strings.Contains(r.stdout, "2/2") {
			t.Errorf("%v: exit code %d\n%s%s", again, r.code, r.stdout, r.stderr)
		}
		if err := os.Remove(done); err != nil {
			t.Fatal(err)
		}
		h.must("down", "-p", "app", "--forget")
	}
	h.mustDeploy(app("v1", "[serve]", served))
	pauses := strings.Replace(accepts, "replicas: 2", "replicas: 2, update_config: {failure_action: pause, order: start-first}", 1)
	for version, again := range map[string]func(string) result{
		"v2": func(string) result { return h.run(nil, "rollout", "resume", "-p", "app") },
		"v1": func(manifest string) result { return h.deploy(manifest) },
	} {
		manifest := app(version, "[serve]", pauses)
		h.fails(h.deploy(manifest), 3, "no such file", "no such table")
		h.fails(again(manifest), 3, "no such file", "no such table")
		putRight()
		if r := again(manifest); r.code != 0 || !strings.Contains(r.stdout, "2/2") {
			t.Errorf("%s: exit code %d\n%s%s", version, r.code, r.stdout, r.stderr)
		}
		if err := os.Remove(done); err != nil {
			t.Fatal(err)
		}
	}
}

// A stop and a start bring back the release that serves while another one is paused.
func TestStopAndStartOfAPausedRelease(t *testing.T) {
	h := newHost(t)
	h.loadApp()
	h.mustDeploy(app("v1", "[serve]", served))
	pause := strings.Replace(served, "replicas: 2", "replicas: 2, update_config: {failure_action: pause}", 1)
	h.fails(h.deploy(app("v2", "[exit-now]", pause)), 3, "is paused: ", "testapp: unknown command [exit-now]")
	h.must("stop", "-p", "app")
	r := h.run(nil, "start", "-p", "app")
	if r.code != 0 || !strings.Contains(r.stderr, "release 2 stays paused (") || !strings.Contains(r.stdout, "release 1 serves meanwhile, with 2 ready") {
		t.Errorf("start: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	if got, err := h.get(8080, "/"); err != nil {
		t.Errorf("nobody answers: %q, %v", got, err)
	}
	h.must("rollback", "-p", "app")
	h.ready(2)
}
