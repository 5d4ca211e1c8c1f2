package e2e

import (
	"testing"
	"time"

	"dunnage/spec"
)

// A killed agent leaves a prober in each replica. To end it is not a part of the
// next agent's first check, whatever the check's timeout.
func TestKilledAgentsProber(t *testing.T) {
	h := newHost(t)
	h.loadApp()
	h.mustDeploy(app("v1", "[serve]", "    deploy: {replicas: 2}\n    healthcheck: {test: [CMD, /testapp, exit, '0', 0s], interval: 300ms, timeout: 1500ms, retries: 1}\n"))
	before := h.ready(2)
	for range 2 {
		h.killPid(h.lab.Pid("agent"))
		h.start()
		time.Sleep(3 * time.Second) // some checks
	}
	if after := h.ready(2); pids(after) != pids(before) {
		t.Errorf("processes %s, then %s", pids(before), pids(after))
	}
	for _, e := range h.events("app") {
		if e.Kind == spec.EventUnhealthy {
			t.Errorf("%+v", e)
		}
	}
}
