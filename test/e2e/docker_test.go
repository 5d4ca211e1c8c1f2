package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dunnage/internal/testenv"
)

// A Docker daemon starts on the same host, runs a container, redeploys beside us
// and goes away again: our port never misses a request, its container is reached
// on its own, and neither touches the other's rules. `make test` unpacks Docker.
func TestDockerBesideUs(t *testing.T) {
	h := newHost(t)
	h.mustDeploy(hello("v1", 2, ""))
	client := testenv.OpenNS(t, h.lab.ClientPath())
	theirs := h.lab.Host.String() + ":8081"
	socket := "unix://" + h.lab.Path("docker.sock")
	programs, err := filepath.Abs("../../build/docker/usr")
	if err != nil {
		t.Fatal(err)
	}
	docker := func(args ...string) (string, error) {
		out, err := exec.Command(filepath.Join(programs, "bin/docker"), append([]string{"-H", socket}, args...)...).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("docker %s: %w: %s", strings.Join(args, " "), err, out)
		}
		return string(out), err
	}
	cgroup := h.lab.Name + "-docker"
	t.Cleanup(func() { // docker leaves the parent
		dirs, _ := filepath.Glob("/sys/fs/cgroup/*/" + cgroup)
		for _, d := range dirs {
			if err := os.Remove(d); err != nil {
				t.Error(err)
			}
		}
	})
	start := func() {
		err := h.lab.Start("dockerd", []string{"PATH=" + filepath.Join(programs, "sbin") + ":" + os.Getenv("PATH")}, "dockerd", "--data-root", h.lab.Path("docker"), "--exec-root", h.lab.Path("docker-exec"),
			"--pidfile", h.lab.Path("docker.pid"), "-H", socket, "--cgroup-parent", cgroup)
		if err != nil {
			t.Fatal(err)
		}
		h.eventually(time.Minute, "dockerd", func() error { _, err := docker("version"); return err })
	}
	reached := func(when string) {
		h.eventually(20*time.Second, "docker's container "+when, func() error { return ask(client, theirs) })
	}
	h.underLoad(8080, func() {
		start()
		for _, args := range [][]string{
			{"load", "-i", filepath.Join(h.tools, "hello-v1.tar")},
			{"run", "-d", "--restart", "always", "--name", "theirs", "-p", "8081:80", "example.org/hello:v1"},
		} {
			if _, err := docker(args...); err != nil {
				t.Fatal(err)
			}
		}
		reached("after its start")
		rules := h.foreignRules(t)
		if !strings.Contains(rules, "--dport 8081") {
			t.Fatalf("docker laid no rule for its port:\n%s", rules)
		}
		h.mustDeploy(hello("v2", 2, ""))
		h.rulesEqual()
		if after := h.foreignRules(t); after != rules {
			t.Errorf("docker's rules are\n%s\nwere\n%s", after, rules)
		}
		reached("after our redeploy")
		if r := h.run(nil, "explain", theirs); !strings.Contains(r.stdout, "(docker): sent on to ") {
			t.Errorf("explain doesn't name docker's rule:\n%s", r.stdout)
		}
		if err := h.lab.Stop(t.Context(), "dockerd"); err != nil {
			t.Fatal(err)
		}
		start() // lays its chains in front again
		reached("after its restart")
		h.mustDeploy(hello("v1", 2, ""))
		if _, err := docker("rm", "-f", "theirs"); err != nil {
			t.Error(err)
		}
		if err := h.lab.Stop(t.Context(), "dockerd"); err != nil {
			t.Fatal(err)
		}
	})
	h.rulesEqual()
	for _, e := range h.repairs() {
		t.Errorf("docker broke something: %s", e)
	}
	h.clean(h.ready(2))
}
