package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"dunnage/spec"
	"dunnage/test/lab"
)

// state is the state of the project's replicas, if all have the same.
func (h *host) state() (state spec.ReplicaState) {
	for i, r := range h.ps() {
		if i > 0 && r.State != state {
			return "mixed"
		}
		state = r.State
	}
	return state
}

// A rule of somebody else that drops what comes to a port is seen, told, and
// seen to be gone.
func TestUnreachable(t *testing.T) {
	h := newHost(t)
	h.mustDeploy(hello("v1", 2, ""))
	h.ready(2)
	drop := []string{"FORWARD", "-p", "tcp", "--dport", "80", "-j", "DROP"}
	iptables := func(op string) {
		if _, err := lab.Output(t.Context(), h.lab.OnHost(append([]string{"iptables", op}, drop...)...)...); err != nil {
			t.Fatal(err)
		}
	}
	is := func(want spec.ReplicaState) func() error {
		return func() error {
			if got := h.state(); got != want {
				return fmt.Errorf("replicas are %q, want %q", got, want)
			}
			return nil
		}
	}
	iptables("-I")
	h.eventually(20*time.Second, "the drop is seen", is(spec.StateUnreachable))
	r := h.run(nil, "ps", "-p", "hello")
	if want := "port 8080: healthy inside, unreachable outside: no answer within 2s; `dunnage explain 8080` shows where"; !strings.Contains(r.stdout+r.stderr, want) {
		t.Errorf("ps says %q %q, want %q", r.stdout, r.stderr, want)
	}
	// The release that mends it, or any other, isn't held up by it.
	if r := h.deploy(hello("v2", 2, "")); r.code != 0 || !strings.Contains(r.stdout+r.stderr, "as before this release") {
		t.Errorf("a release beside the drop: %+v", r)
	} else if want := "web, port 8080 (" + h.lab.Host.String() + ") is unreachable"; !strings.Contains(r.stdout+r.stderr, want) {
		t.Errorf("its receipt doesn't say %q: %+v", want, r)
	}
	iptables("-D")
	h.eventually(20*time.Second, "it is gone", is(spec.StateReady))
	var kinds []spec.EventKind
	for _, e := range h.events("hello") {
		if e.Kind == spec.EventUnreachable || e.Kind == spec.EventReachable {
			kinds = append(kinds, e.Kind)
		}
	}
	if want := []spec.EventKind{spec.EventUnreachable, spec.EventReachable}; !slices.Equal(kinds, want) {
		t.Errorf("events %v, want %v", kinds, want)
	}
	// One that comes just before a release is named by its end, which it isn't to blame for.
	iptables("-I")
	r = h.deploy(hello("v1", 2, ""))
	if want := "whichever release serves, connections are dropped by iptables-nft filter FORWARD, rule 1: -p tcp -m tcp --dport 80 -j DROP"; r.code != 3 || !strings.Contains(r.stdout+r.stderr, want) {
		t.Errorf("%+v, want exit code 3 and %q", r, want)
	}
	iptables("-D")
	h.clean(h.ready(2))
}

// A program that is healthy by its own check, and listens where no client gets
// to it, doesn't stay.
func TestUnreachableReleaseGoesBack(t *testing.T) {
	h := newHost(t)
	h.mustDeploy(hello("v1", 1, ""))
	before := pids(h.ready(1))
	deaf := `name: hello
services:
  web:
    image: example.org/hello:v2
    command: ["-listen", "127.0.0.1:80"]
    ports: ["8080:80"]
    healthcheck: {test: [CMD, /hello, -h], interval: 1s}
    x-dunnage: {drain: 1s, max_failed: 1000}
`
	r := h.deploy(deaf)
	if want := "port 8080: healthy inside, unreachable outside: connection refused"; r.code != 3 || !strings.Contains(r.stdout+r.stderr, want) {
		t.Errorf("%+v, want exit code 3 and %q", r, want)
	}
	if after := pids(h.ready(1)); after != before { // it stood by
		t.Errorf("the old replica was %s and is %s", before, after)
	}
	h.answers(8080, "version v1")
}
