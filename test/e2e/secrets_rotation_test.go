package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"dunnage/spec"
	"dunnage/test/load"
)

// serves waits until every replica's process answers with the value.
func (h *host) serves(value string) {
	h.t.Helper()
	h.answers(8080, "version "+value)
}

// A new version reaches who uses it without a lost request, and the old one is
// gone; it goes back by `rollback` of the project and of the secret.
func TestSecretRotation(t *testing.T) {
	h := newHost(t)
	h.loadKeeper()
	h.mustSet("token", "value-1")
	h.mustDeploy(keeper(2, "", ""))
	first := h.ready(2)
	rep := h.under(8080, load.Config{Rate: 300}, func() {
		h.mustSet("token", "value-2") // returns when it has arrived
		h.serves("value-2")
		h.eventually(30*time.Second, "the old value is gone", func() error {
			if found := h.holders(h.lab.Path("run"), "value-1"); len(found) > 0 {
				return fmt.Errorf("it stands in %v", found)
			}
			return nil
		})
	})
	if rep.Versions["value-1"] == 0 || rep.Versions["value-2"] == 0 {
		t.Errorf("values that answered: %v", rep.Versions)
	}
	second := h.ready(2)
	for i := range second {
		if got := h.inside(second[i], "/run/secrets/token"); got != "value-2" || second[i].Pid == first[i].Pid {
			t.Errorf("%s (before: pid %d) has %q", second[i].Replica, first[i].Pid, got)
		}
	}

	h.must("rollback", "-p", "keeper")
	h.serves("value-1")
	h.mustDeploy(keeper(2, "", "")) // somebody decides anew
	h.serves("value-2")

	// A value with which the service isn't healthy is taken back, and stays so.
	rep = h.under(8080, load.Config{Rate: 300}, func() {
		r := h.set("token", "bad-value")
		h.refuses(r, 3, "answered 503")
		time.Sleep(3 * time.Second) // what must not happen needs its time
	})
	if rep.Versions["value-2"] == 0 || len(rep.Versions) != 1 {
		t.Errorf("values that answered: %v", rep.Versions)
	}
	h.serves("value-2")
	releases := len(h.releases("keeper"))
	killAgent(h)
	h.start()
	h.ready(2)
	h.serves("value-2")
	if n := len(h.releases("keeper")); n != releases {
		t.Errorf("%d releases, then %d", releases, n)
	}
	// The secret itself is still the bad one, until it is taken back too.
	h.is("token", "bad-value")
	h.must("secret", "rollback", "token")
	h.is("token", "value-2")
	h.serves("value-2")
	h.must("secret", "rollback", "token")
	h.is("token", "value-1")
	h.serves("value-1")
	h.clean(h.ready(2))
	h.audit()
}

func (h *host) releases(project string) (out []spec.Release) {
	h.t.Helper()
	if err := json.Unmarshal([]byte(h.must("history", "-p", project, "--json")), &out); err != nil {
		h.t.Fatal(err)
	}
	return out
}

// Where the manifest says so, running replicas get new files, and a signal.
func TestSecretSwappedInPlace(t *testing.T) {
	h := newHost(t)
	h.loadKeeper()
	h.mustSet("token", "value-1")
	h.mustDeploy(keeper(2, ", on_secret_change: signal:HUP", ""))
	before := h.ready(2)
	h.mustSet("token", "value-2")
	after := h.ready(2)
	if pids(after) != pids(before) {
		t.Errorf("processes: %s, then %s", pids(before), pids(after))
	}
	h.has(after, "value-2")
	h.eventually(10*time.Second, "the signal is answered", func() error {
		for range 8 { // a connection goes to either replica
			if body, err := h.get(8080, "/"); err != nil || !strings.Contains(body, "value-2") {
				return fmt.Errorf("%q, %w", body, err)
			}
		}
		return nil
	})
	if body, err := h.get(8080, "/hups"); err != nil || body != "1\n" {
		t.Errorf("%q signals, %v", body, err)
	}
	killAgent(h)
	h.start()
	h.ready(2)
	if body, err := h.get(8080, "/hups"); err != nil || body != "1\n" {
		t.Errorf("%q signals after a restart of the agent, %v", body, err)
	}
	// One that starts later, and one that starts again, has the new one.
	h.must("scale", "-p", "keeper", "web=3")
	h.has(h.ready(3), "value-2")

	h.mustDeploy(keeper(2, ", on_secret_change: none", ""))
	before = h.ready(2)
	h.mustSet("token", "value-3")
	after = h.ready(2)
	if pids(after) != pids(before) {
		t.Errorf("processes: %s, then %s", pids(before), pids(after))
	}
	h.has(after, "value-3")
	h.serves("value-2") // nobody told it
	if body, err := h.get(8080, "/hups"); err != nil || body != "1\n" {
		t.Errorf("%q signals, %v; want the earlier one alone", body, err)
	}
	if found := h.holders(h.lab.Path("run"), "value-2"); len(found) > 0 {
		t.Errorf("the old value stands in %v", found)
	}
	h.clean(after)
}

// has checks what stands in the replicas' file.
func (h *host) has(rs []spec.ReplicaStatus, value string) {
	h.t.Helper()
	for _, r := range rs {
		if got := h.inside(r, "/run/secrets/token"); got != value {
			h.t.Errorf("%s has %q, want %q", r.Replica, got, value)
		}
	}
}

// A new version that comes while its project is changed arrives after that, and
// whoever set it sees it arrive.
func TestSecretSetDuringDeploy(t *testing.T) {
	h := newHost(t)
	h.loadKeeper()
	h.mustSet("token", "value-1")
	h.mustDeploy(keeper(2, "", ""))
	h.ready(2)
	rep := h.under(8080, load.Config{Rate: 300}, func() {
		deployed := make(chan result, 1)
		file := h.file("slow.yaml", strings.Replace(keeper(2, "", ""), "replicas: 2", "replicas: 2, update_config: {monitor: 2s}", 1))
		go func() { deployed <- h.run(nil, "deploy", "-f", file, "--force") }()
		h.eventually(30*time.Second, "a deploy is under way", func() error {
			if !strings.Contains(h.must("history", "-p", "keeper"), "rolling") {
				return errors.New("not yet")
			}
			return nil
		})
		if r := h.set("token", "value-2"); r.code != 0 || !strings.Contains(r.stdout, "keeper: rollout of secrets done") {
			t.Errorf("set: %+v", r)
		}
		if r := <-deployed; r.code != 0 {
			t.Errorf("deploy: %+v", r)
		}
		h.eventually(30*time.Second, "the new value arrives", func() error {
			if body, err := h.get(8080, "/"); err != nil || !strings.Contains(body, "value-2") {
				return fmt.Errorf("%q, %w", body, err)
			}
			return nil
		})
	})
	if rep.Versions["value-1"] == 0 || rep.Versions["value-2"] == 0 {
		t.Errorf("values that answered: %v", rep.Versions)
	}
	h.has(h.ready(2), "value-2")
	h.clean(h.ready(2))
}
