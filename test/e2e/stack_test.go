package e2e

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"dunnage/internal/testenv"
	"dunnage/spec"
	"dunnage/test/images"
	"dunnage/test/load"
)

const root = "../.."

// stackImages are the archives of examples/stack; Debian's packages are
// installed into an image once a checkout.
var stackImages = sync.OnceValues(func() ([]string, error) {
	dir, err := built()
	if err != nil {
		return nil, err
	}
	imgs, err := images.Stack(context.Background(), filepath.Join(root, "examples/stack/images"), filepath.Join(root, "build/cache"))
	if err != nil {
		return nil, err
	}
	names := []string{"stack"}
	if err := images.Write(filepath.Join(dir, "stack.tar"), imgs...); err != nil {
		return nil, err
	}
	for _, v := range images.Versions {
		app, err := images.App(context.Background(), v)
		if err != nil {
			return nil, err
		}
		name := "stack-app-" + v
		if err := images.Write(filepath.Join(dir, name+".tar"), app); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, nil
})

var rows = regexp.MustCompile(`row (\d+), version (v\d)`)

// visit asks through nginx and returns the row that the visit became.
func (h *host) visit() (int, string, error) {
	body, err := h.get(8081, "/")
	if err != nil {
		return 0, "", err
	}
	m := rows.FindStringSubmatch(body)
	if m == nil {
		return 0, "", fmt.Errorf("answer %q", body)
	}
	n, err := strconv.Atoi(m[1])
	return n, m[2], err
}

// nginx, an app, redis and postgres from images with the habits of the official
// ones: deployed in the order of depends_on, the app changed and rolled back
// under load, the data kept over all of it and over a restart of everything.
func TestStack(t *testing.T) {
	testenv.Root(t)
	names, err := stackImages()
	if err != nil {
		t.Fatal(err)
	}
	h := newHost(t)
	if err := h.agent.LoadImages(t.Context(), h.tools, names...); err != nil {
		t.Fatal(err)
	}
	manifest, err := filepath.Abs(filepath.Join(root, "examples/stack/compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if r := h.run(nil, "deploy", "-f", manifest); r.code != 1 || !strings.Contains(r.stderr, "dunnage secret set db-password") {
		t.Fatalf("deploy without the password: %+v", r)
	}
	h.mustSet("db-password", "first-password")
	h.must("deploy", "-f", manifest)
	before := h.ready(5)
	first, version, err := h.visit()
	if err != nil || version != "v1" {
		t.Fatalf("visit: row %d, version %q, %v", first, version, err)
	}
	h.startedInOrder("redis", "app", "nginx")

	traffic, err := h.lab.StartTraffic(filepath.Join(h.tools, "dunnage-load"), load.Config{Addr: h.lab.Host.String() + ":8081", Rate: 50, KeepAlive: 5})
	if err != nil {
		t.Fatal(err)
	}
	if r := h.run([]string{"APP_VERSION=v2"}, "deploy", "-f", manifest); r.code != 0 {
		t.Fatalf("deploy of v2: %+v", r)
	}
	if _, version, err := h.visit(); err != nil || version != "v2" {
		t.Errorf("after the deploy: version %q, %v", version, err)
	}
	h.must("rollback", "-p", "stack")
	rep, err := traffic.Stop()
	if err != nil || rep.Failed != 0 || rep.Asked == 0 {
		t.Errorf("load: %s, %v", rep, err)
	}
	last, version, err := h.visit()
	if err != nil || version != "v1" || last <= first {
		t.Errorf("after the rollback: row %d after %d, version %q, %v", last, first, version, err)
	}
	h.onlyServiceChanged(before, h.ready(5), "app")
	h.newPassword(before)

	h.must("restart", "-p", "stack")
	h.ready(5)
	again, _, err := h.visit()
	if err != nil || again <= last {
		t.Errorf("after a restart of everything: row %d after %d, %v", again, last, err)
	}
	h.must("down", "-p", "stack")
	h.clean(nil)
	h.must("rollback", "-p", "stack")
	h.ready(5)
	if n, _, err := h.visit(); err != nil || n <= again {
		t.Errorf("after down and back: row %d after %d, %v", n, again, err)
	}
}

// newPassword changes the password of the database under load: the app is
// replaced, the database goes on.
func (h *host) newPassword(before []spec.ReplicaStatus) {
	h.t.Helper()
	rep := h.under(8081, load.Config{Rate: 100, KeepAlive: 5}, func() {
		h.mustSet("db-password", "it's another")
		if _, _, err := h.visit(); err != nil {
			h.t.Error(err)
		}
	})
	after := h.ready(5)
	h.onlyServiceChanged(before, after, "app")
	for _, r := range after {
		if r.Service != "app" && r.Service != "postgres" {
			continue
		}
		if got := h.inside(r, "/run/secrets/db-password"); got != "it's another" {
			h.t.Errorf("%s has %q", r.Replica, got)
		}
	}
	for _, password := range []string{"first-password", "it's another"} {
		if found := h.holders(h.lab.Path("run/secrets"), password); (len(found) > 0) != (password != "first-password") {
			h.t.Errorf("%s stands in %v", password, found)
		}
		// The password counts over the network; the old one doesn't any more.
		_, err := h.psql(after, password)
		if (err == nil) != (password != "first-password") {
			h.t.Errorf("with %s the database says %v", password, err)
		}
		for _, dir := range []string{"state/volumes", "state/logs"} {
			if found := h.holders(h.lab.Path(dir), password); len(found) > 0 {
				h.t.Errorf("%s stands in %v", password, found)
			}
		}
	}
	h.t.Logf("%s", rep)
}

// psql asks the database over the network, from within its container.
func (h *host) psql(rs []spec.ReplicaStatus, password string) (string, error) {
	h.t.Helper()
	for _, r := range rs {
		if r.Service == "postgres" {
			out := h.run(nil, "exec", "-e", "PGPASSWORD="+password, r.Replica, "psql", "-h", r.Addresses[0].String(), "-U", "app", "-d", "app", "-tAc", "SELECT 1")
			if out.code != 0 {
				return "", errors.New(out.stderr)
			}
			return out.stdout, nil
		}
	}
	return "", errors.New("no database")
}

func (h *host) startedInOrder(services ...string) {
	h.t.Helper()
	at := map[string]time.Time{}
	for _, r := range h.ps() {
		if at[r.Service].IsZero() || r.Started.Before(at[r.Service]) {
			at[r.Service] = r.Started
		}
	}
	for i := 1; i < len(services); i++ {
		if !at[services[i-1]].Before(at[services[i]]) {
			h.t.Errorf("%s started at %s, not before %s at %s", services[i-1], at[services[i-1]], services[i], at[services[i]])
		}
	}
}

// onlyServiceChanged checks that the processes of all other services are the
// ones they were.
func (h *host) onlyServiceChanged(before, after []spec.ReplicaStatus, service string) {
	h.t.Helper()
	pid := map[string]int{}
	for _, r := range before {
		pid[r.Replica] = r.Pid
	}
	for _, r := range after {
		if r.Service != service && pid[r.Replica] != r.Pid {
			h.t.Errorf("%s has pid %d, before %d", r.Replica, r.Pid, pid[r.Replica])
		}
	}
}

// After a reboot, with run directory and rules gone, everything comes back by
// itself in the order of depends_on.
func TestReboot(t *testing.T) {
	h := newHost(t)
	h.mustDeploy(hello("v1", 2, "    depends_on: {side: {condition: service_healthy}}\n  side:\n    image: example.org/hello:v1\n"))
	h.ready(3)
	h.reboot()
	h.start()
	h.ready(3)
	h.answers(8080, "version v1")
	h.startedInOrder("side", "web")
	h.clean(h.ready(3))
}

// reboot kills all processes of the host and empties what a reboot empties.
func (h *host) reboot() {
	h.t.Helper()
	if err := h.lab.Reboot(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
}
