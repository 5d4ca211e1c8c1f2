package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"dunnage/spec"
	"dunnage/test/lab"
	"dunnage/test/load"
)

// modes has a service of each network mode. What joins front is asked through
// front's published port.
func modes(front, app string) string {
	return fmt.Sprintf(`
name: modes
services:
  machine:
    image: example.org/hello:v1
    network_mode: host
    command: [-listen, ":9001"]
    expose: [9001]
  alone:
    image: example.org/hello:v1
    network_mode: none
  front:
    image: example.org/hello:%s
    ports: ["8080:80", "8081:81"]
  app:
    image: example.org/hello:%s
    network_mode: service:front
    command: [-listen, ":81", -leave, 1s]
    expose: [81]
`, front, app)
}

// alone is modes with an app that is replaced without front.
func alone(front, app string) string {
	return strings.Replace(modes(front, app), "    expose: [81]\n", "    expose: [81]\n    deploy: {update_config: {order: stop-first}}\n", 1)
}

func TestNetworkModes(t *testing.T) {
	h := newHost(t)
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	of := func() map[string]spec.ReplicaStatus {
		t.Helper()
		out := map[string]spec.ReplicaStatus{}
		for _, r := range h.ready(4) {
			out[r.Service] = r
		}
		return out
	}
	inside := func(r spec.ReplicaStatus, argv ...string) string {
		t.Helper()
		out, err := lab.Output(t.Context(), append([]string{"nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", r.Pid), "--"}, argv...)...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}

	h.mustDeploy(alone("v1", "v1"))
	first := of()
	h.answers(9001, "hello from "+name+", version v1")
	h.answers(8080, "hello from front-1, version v1")
	h.answers(8081, "hello from front-1, version v1")
	if links := strings.Fields(inside(first["alone"], "ip", "-br", "link")); len(links) == 0 || links[0] != "lo" || strings.Contains(strings.Join(links, " "), "eth0") {
		t.Errorf("in no network there are the links %q", links)
	}
	if body := inside(first["app"], "curl", "-sS", "-m", "5", "http://127.0.0.1:80/"); !strings.Contains(body, "hello from front-1") {
		t.Errorf("by localhost, front answers %q", body)
	}
	for _, file := range []string{"/etc/hosts", "/etc/resolv.conf", "/etc/hostname"} {
		front, err := os.ReadFile(fmt.Sprintf("/proc/%d/root%s", first["front"].Pid, file))
		if err != nil {
			t.Fatal(err)
		}
		if app, err := os.ReadFile(fmt.Sprintf("/proc/%d/root%s", first["app"].Pid, file)); err != nil || string(app) != string(front) {
			t.Errorf("%s of app is %q (%v), of front %q", file, app, err, front)
		}
	}
	h.clean(h.ps())

	// Another front takes app along, another app leaves front alone.
	h.mustDeploy(alone("v2", "v1"))
	second := of()
	h.answers(8080, "version v2")
	h.answers(8081, "version v1")
	for service, replaced := range map[string]bool{"front": true, "app": true, "machine": false, "alone": false} {
		if (first[service].Pid != second[service].Pid) != replaced {
			t.Errorf("%s had the process %d and has %d", service, first[service].Pid, second[service].Pid)
		}
	}
	h.mustDeploy(alone("v2", "v2"))
	third := of()
	h.answers(8081, "version v2")
	if third["front"].Pid != second["front"].Pid || third["app"].Pid == second["app"].Pid {
		t.Errorf("another app: %v, then %v", second, third)
	}
	h.clean(h.ps())

	killAgent(h)
	h.start()
	if after := of(); after["app"].Pid != third["app"].Pid || after["machine"].Pid != third["machine"].Pid || after["alone"].Pid != third["alone"].Pid {
		t.Errorf("the agent started: %v, then %v", third, after)
	}
	if r := h.run(nil, "scale", "-p", "modes", "front=0"); r.code == 0 || !strings.Contains(r.stderr, "scale both") {
		t.Errorf("scale the joined service away: %+v", r)
	}
	h.must("rollback", "-p", "modes")
	of()
	h.answers(8081, "version v1")
	h.must("down", "-p", "modes")
	h.clean(nil)
}

// TestRedeployOfWhoSharesANetwork: whichever of two services in one network is
// deployed anew, no request to either fails, and both are replaced.
func TestRedeployOfWhoSharesANetwork(t *testing.T) {
	h := newHost(t)
	manifest := func(front, app string) string {
		return fmt.Sprintf(`
name: pairs
services:
  front:
    image: example.org/hello:%s
    ports: ["8080:80", "8081:81"]
    stop_grace_period: 20s
    deploy: {replicas: 2}
    x-dunnage: {drain: 1s}
  app:
    image: example.org/hello:%s
    network_mode: service:front
    command: [-listen, ":81"]
    expose: [81]
    stop_grace_period: 20s
    deploy: {replicas: 2}
`, front, app)
	}
	h.mustDeploy(manifest("v1", "v1"))
	before := pids(h.ready(4))
	redeploy := func(front, app string) {
		t.Helper()
		h.underLoad(8081, func() {
			h.under(8080, load.Config{Rate: 200}, func() { h.mustDeploy(manifest(front, app)) })
			h.answers(8080, "version "+front)
			h.answers(8081, "version "+app)
		})
		rs := h.ready(4)
		for _, r := range rs {
			if strings.Contains(before, fmt.Sprintf("=%d ", r.Pid)) {
				t.Errorf("%s wasn't replaced", r.Replica)
			}
		}
		before = pids(rs)
		h.clean(rs)
	}
	redeploy("v2", "v1")
	redeploy("v2", "v2")
}

// TestBadFrontBringsBackWhoJoinedIt: a rollback finds the old network and who
// shares it.
func TestBadFrontBringsBackWhoJoinedIt(t *testing.T) {
	h := newHost(t)
	h.mustDeploy(modes("v1", "v1"))
	h.ready(4)
	bad := strings.Replace(modes("v2", "v1"), `command: [-listen, ":81", -leave, 1s]`, `command: [-listen, ":81", -leave, never]`, 1)
	if r := h.deploy(bad); r.code != 3 {
		t.Fatalf("deploy: %+v", r)
	}
	h.ready(4)
	h.answers(8080, "version v1")
	h.answers(8081, "version v1")
	h.clean(h.ps())
}
