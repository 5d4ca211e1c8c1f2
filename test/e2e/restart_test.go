package e2e

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"dunnage/spec"
)

// restarts has a service for each restart policy, one that dies and one that
// lives, and one that waits for others.
const restarts = `name: app
x-app: &app {image: "example.org/app:v1", stop_grace_period: 1s}
services:
  once:       {<<: *app, command: [exit, "3"], restart: "no"}
  thrice:     {<<: *app, command: [exit, "4"], restart: "on-failure:2"}
  again:      {<<: *app, command: [exit, "0", 50ms], restart: always}
  job:        {<<: *app, command: [log, "1"], restart: on-failure}
  lives-once: {<<: *app, command: [sleep, 1h], restart: "no"}
  lives:      {<<: *app, command: [serve], restart: on-failure, x-dunnage: {probe: {http: {port: 80, path: /health}}}}
  stopped:    {<<: *app, command: [sleep, 1h], restart: unless-stopped}
  held:       {<<: *app, command: [sleep, 1h], restart: always}
  in-vain:    {<<: *app, command: [sleep, 1h], depends_on: {once: {condition: service_healthy}}}
  after:
    <<: *app
    command: [sleep, 1h]
    depends_on:
      job: {condition: service_completed_successfully}
      lives: {condition: service_healthy}
`

// byService is what ps says of each service's only replica.
func (h *host) byService() map[string]spec.ReplicaStatus {
	out := map[string]spec.ReplicaStatus{}
	for _, r := range h.ps() {
		out[r.Service] = r
	}
	return out
}

// become waits until each service is in the state.
func (h *host) become(want map[string]spec.ReplicaState) map[string]spec.ReplicaStatus {
	h.t.Helper()
	var now map[string]spec.ReplicaStatus
	h.eventually(time.Minute, "the services' states", func() error {
		now = h.byService()
		for service, state := range want {
			if now[service].State != state {
				return fmt.Errorf("%s is %s, not %s", service, now[service].State, state)
			}
		}
		return nil
	})
	return now
}

// What becomes of a container that ends is said by its restart policy, while
// the agent watches, when it comes back, and after a reboot.
func TestRestartPolicies(t *testing.T) {
	h := newHost(t)
	h.loadApp()
	h.run(nil, "deploy", "-d", "-f", h.file("compose.yaml", restarts))
	states := map[string]spec.ReplicaState{
		"once": spec.StateFailed, "thrice": spec.StateFailed, "job": spec.StateCompleted,
		"lives-once": spec.StateReady, "lives": spec.StateReady, "stopped": spec.StateReady, "held": spec.StateReady, "after": spec.StateReady,
	}
	h.become(states)
	h.must("stop", "-p", "app", "stopped", "held")
	states["stopped"], states["held"] = spec.StateStopped, spec.StateStopped
	before := h.become(states)
	h.nextTryIsShown("again")
	h.inVainIsTold()
	h.check(before, "once", 3, 0)
	h.check(before, "thrice", 4, 2)

	killAgent(h)
	h.killPid(before["lives"].Pid) // while nobody looks
	h.start()
	after := h.become(states)
	h.check(after, "once", 3, 0)
	h.check(after, "thrice", 4, 2)
	if r := after["lives"]; r.Pid == before["lives"].Pid || r.Restarts != 1 {
		t.Errorf("lives: %+v", r)
	}
	for _, service := range []string{"lives-once", "after"} {
		if after[service].Pid != before[service].Pid || after[service].Restarts != 0 {
			t.Errorf("%s: %+v, before %+v", service, after[service], before[service])
		}
	}
	h.countsOn(before, after)
	h.nextTryIsShown("again")

	before = h.byService()
	h.reboot()
	h.start()
	states["lives-once"] = spec.StateFailed // Docker leaves it dead as well
	after = h.become(states)
	h.check(after, "once", 3, 0)
	h.check(after, "thrice", 4, 2)
	h.countsOn(before, after)
	h.startedInOrder("lives", "after")
	if log := h.must("logs", "-p", "app", "job"); strings.Count(log, "\n") != 1 {
		t.Errorf("the job ran again:\n%s", log)
	}
	h.must("start", "-p", "app", "stopped")
	states["stopped"] = spec.StateReady
	h.become(states)
}

// inVainIsTold: what waits for a replica that nobody starts again says so, and how
// to start that.
func (h *host) inVainIsTold() {
	h.t.Helper()
	const want = "waits for once to be healthy, which won't come by itself: app-once-"
	const next = "`dunnage start -p app once` starts it once more"
	if ps := h.run(nil, "ps", "-p", "app"); !strings.Contains(ps.stderr, want) || !strings.Contains(ps.stderr, next) {
		h.t.Errorf("ps: %s", ps.stderr)
	}
	if out := h.must("events", "--no-follow", "-p", "app", "--kind", "problem"); strings.Count(out, want) != 1 {
		h.t.Errorf("events: %s", out)
	}
	found, _ := h.doctor()
	if !slices.ContainsFunc(found["services"], func(f spec.Finding) bool {
		return strings.Contains(f.Text, "app/in-vain: 0 of 1 ready: "+want) && f.Next == next
	}) {
		h.t.Errorf("doctor: %+v", found["services"])
	}
	if start := h.run(nil, "start", "-p", "app", "once"); start.code != 3 || !strings.Contains(start.stderr, "no further try of once, as the restart policy says: `dunnage start -p app once` makes one") {
		h.t.Errorf("start: %+v", start)
	}
}

// A stop sends the service's own signal and kills what doesn't obey in its
// time, also while a health check runs; the exit code tells which it was.
func TestStopSignals(t *testing.T) {
	h := newHost(t)
	h.loadApp()
	h.mustDeploy(`name: app
x-app: &app {image: "example.org/app:v1", stop_grace_period: 1s}
services:
  plain:    {<<: *app, command: [sleep, 1h]}
  own:      {<<: *app, command: [sleep, 1h], stop_signal: SIGUSR1}
  stubborn: {<<: *app, command: [stubborn], healthcheck: {disable: true}}
  checked:
    <<: *app
    command: [sleep, 1h]
    healthcheck: {test: [CMD, /testapp, sleep, 1h], timeout: 1h, start_period: 1h}
    x-dunnage: {progress_deadline: 1s}
`, "-d")
	h.eventually(time.Minute, "all run", func() error {
		for _, service := range []string{"plain", "own", "stubborn", "checked"} {
			if h.byService()[service].Pid == 0 {
				return fmt.Errorf("%s doesn't", service)
			}
		}
		return nil
	})
	h.awaitLog("plain", "own", "stubborn", "checked")
	h.must("stop", "-p", "app")
	var all map[string]spec.ReplicaStatus
	h.eventually(time.Minute, "the exits are recorded", func() error { // a look after the processes are gone
		all = h.byService()
		for service, r := range all {
			if r.ExitCode == nil {
				return fmt.Errorf("that of %s isn't", service)
			}
		}
		return nil
	})
	for service, code := range map[string]int{"plain": 143, "own": 138, "stubborn": 137, "checked": 143} {
		h.check(all, service, code, 0)
		if all[service].State != spec.StateStopped {
			t.Errorf("%s is %s", service, all[service].State)
		}
	}
	h.must("down", "-p", "app")
	h.clean(nil)
}

// awaitLog waits until each service has said that it hears signals.
func (h *host) awaitLog(services ...string) {
	h.t.Helper()
	for _, service := range services {
		h.eventually(time.Minute, service+" is ready", func() error {
			if !strings.Contains(h.must("logs", "-p", "app", service), "ready") {
				return errors.New("not yet")
			}
			return nil
		})
	}
}

// check looks at exit code and number of restarts.
func (h *host) check(all map[string]spec.ReplicaStatus, service string, code, restarts int) {
	h.t.Helper()
	r := all[service]
	if r.ExitCode == nil || *r.ExitCode != code || r.Restarts != restarts {
		h.t.Errorf("%s: %+v, want exit code %d and %d restarts", service, r, code, restarts)
	}
}

// countsOn checks that no counter went back.
func (h *host) countsOn(before, after map[string]spec.ReplicaStatus) {
	h.t.Helper()
	for service, r := range before {
		if now := after[service].Restarts; now < r.Restarts {
			h.t.Errorf("%s: %d restarts, before %d", service, now, r.Restarts)
		}
	}
}

// nextTryIsShown waits for a crash loop to be told with the time of its next try.
func (h *host) nextTryIsShown(service string) {
	h.t.Helper()
	h.eventually(time.Minute, "the next try of "+service, func() error {
		r := h.byService()[service]
		if r.State != spec.StateBackoff || r.RetryAt.IsZero() || r.Restarts < 3 {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
}
