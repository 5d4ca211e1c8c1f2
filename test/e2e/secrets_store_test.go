package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"dunnage/spec"
)

// A copy of the store that is brought back is told. Containers that it doesn't
// know hold the agent; whoever is to run with a value of it is given that one,
// never another one of the same number.
func TestOldStoreBroughtBack(t *testing.T) {
	for name, on := range map[string]string{"rolled out": "", "swapped": ", on_secret_change: none"} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.loadKeeper()
			h.mustSet("token", "value-1")
			h.mustDeploy(keeper(2, on, ""))
			h.ready(2)
			db := h.lab.Path("state/dunnage.db")
			swap := func(text []byte) (was []byte) {
				t.Helper()
				killAgent(h)
				was, err := os.ReadFile(db)
				if err == nil && text != nil {
					err = os.WriteFile(db, text, 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
				h.start()
				return was
			}
			old := swap(nil)
			h.mustSet("token", "value-2")
			h.has(h.ready(2), "value-2")
			h.quiet()

			newer := swap(old)
			h.refuses(h.run(nil, "ps"), 0, "an old copy of it")
			if on == "" { // other containers run than it knows
				h.refuses(h.run(nil, "ps"), 0, "doesn't know 2 replicas")
				killAgent(h)
				h.agent.Flags = []string{"--remove-unknown"}
				h.start()
			}
			h.gets("value-1")
			h.mustSet("token", "other-2") // version 2, as the one that was
			h.gets("other-2")
			h.must("rollback", "-p", "keeper")
			h.gets("value-1")

			swap(newer)
			h.refuses(h.run(nil, "ps"), 0, "isn't the one that ran here last")
			h.gets("value-2")
			h.is("token", "value-2")
			h.clean(h.ready(2))

			h.must("secret", "rotate-key")
			before := h.ready(2)
			h.agent.Flags = nil
			swap(old)
			h.refuses(h.run(nil, "ps"), 0, "an old copy of it", "isn't the one that the store was sealed with")
			time.Sleep(2 * time.Second) // what must not happen needs its time
			var after []spec.ReplicaStatus
			for _, r := range h.ps() {
				if r.Pid != 0 {
					after = append(after, r)
				}
			}
			if pids(after) != pids(before) {
				t.Errorf("processes: %s, then %s", pids(before), pids(after))
			}
			h.has(after, "value-2")
		})
	}
}

// gets waits until both replicas have the value, and no others are there.
func (h *host) gets(value string) {
	h.t.Helper()
	h.eventually(30*time.Second, "the replicas have "+value, func() error {
		rs := h.ps()
		for _, r := range rs {
			if r.State != spec.StateReady {
				return fmt.Errorf("%s is %s", r.Replica, r.State)
			}
			if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/root/run/secrets/token", r.Pid)); err != nil || string(b) != value {
				return fmt.Errorf("%s has %q, %w", r.Replica, b, err)
			}
		}
		if len(rs) != 2 {
			return fmt.Errorf("%d replicas", len(rs))
		}
		return nil
	})
}

// quiet checks that nothing is told of another store.
func (h *host) quiet() {
	h.t.Helper()
	if r := h.run(nil, "ps"); strings.Contains(r.stderr, "store") {
		h.t.Errorf("ps: %s", r.stderr)
	}
}
