package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"dunnage/spec"
)

// doctor is `dunnage doctor --json`, by check.
func (h *host) doctor(args ...string) (map[string][]spec.Finding, result) {
	h.t.Helper()
	r, _ := h.soon(append([]string{"doctor", "--json"}, args...)...)
	var all []spec.Finding
	if err := json.Unmarshal([]byte(r.stdout), &all); err != nil {
		h.t.Fatalf("doctor: %v: %s%s", err, r.stdout, r.stderr)
	}
	byCheck := map[string][]spec.Finding{}
	for _, f := range all {
		if (!f.OK || f.Warn) && f.Next == "" {
			h.t.Errorf("nobody says what to do: %+v", f)
		}
		byCheck[f.Check] = append(byCheck[f.Check], f)
	}
	return byCheck, r
}

// writerOf is the pid of a replica's log writer.
func writerOf(t *testing.T, replica string) int {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range all {
		b, _ := os.ReadFile(path) // gone meanwhile
		if line := string(b); strings.Contains(line, "dunnage-log\x00") && strings.Contains(line, "/"+replica+".log\x00") {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			if err != nil {
				t.Fatal(err)
			}
			return pid
		}
	}
	t.Fatalf("%s has no log writer", replica)
	return 0
}

// limitsAreLookedFor takes the cpu controller from a replica, as cgroup v1 and v2
// let others do that, and gives it back.
func (h *host) limitsAreLookedFor(r spec.ReplicaStatus) {
	h.t.Helper()
	write := func(path, text string) {
		h.t.Helper()
		if err := os.WriteFile(path, []byte(text), 0); err != nil {
			h.t.Fatal(err)
		}
	}
	const root = "/sys/fs/cgroup"
	take := func() { write(root+"/cpu/cgroup.procs", strconv.Itoa(r.Pid)) }
	giveBack := func() {
		write(filepath.Join(root, "cpu", h.lab.Name, r.Replica, "cgroup.procs"), strconv.Itoa(r.Pid))
	}
	if _, err := os.Stat(root + "/cgroup.controllers"); err == nil {
		take = func() { write(filepath.Join(root, h.lab.Name, "cgroup.subtree_control"), "-cpu") }
		giveBack = func() { write(filepath.Join(root, h.lab.Name, "cgroup.subtree_control"), "+cpu") }
	}
	if f, _ := h.doctor(); !f["cgroups"][0].OK || !strings.Contains(f["cgroups"][0].Text, "for each of 2 replicas") {
		h.t.Errorf("cgroups: %+v", f["cgroups"])
	}
	take()
	if f, _ := h.doctor(); f["cgroups"][0].OK || !strings.Contains(f["cgroups"][0].Text, "limits of "+r.Replica) {
		h.t.Errorf("without the cpu controller: %+v", f["cgroups"])
	}
	giveBack()
	if f, _ := h.doctor(); !f["cgroups"][0].OK {
		h.t.Errorf("with it again: %+v", f["cgroups"])
	}
}

// A canary that is well is nothing wrong, neither on trial nor paused; doctor says
// who serves.
func TestDoctorInARollout(t *testing.T) {
	h := newHost(t)
	h.mustDeploy(hello("v1", 2, ""))
	h.ready(2)
	if r := h.deploy(hello("v2", 2, "      canary: {replicas: 1, weight: 10}\n"), "--detach"); r.code != 0 {
		t.Fatalf("deploy: %+v", r)
	}
	says := func(warns bool, texts ...string) {
		t.Helper()
		h.eventually(time.Minute, "doctor", func() error {
			found, _ := h.doctor()
			f := found["services"][0]
			for _, text := range append(texts, "release 1 serves meanwhile, with 2 ready (90 % of new connections), and release 2 with 1 (10 %)") {
				if !f.OK || f.Warn != warns || !strings.Contains(f.Text, text) {
					return fmt.Errorf("%+v, want %q", f, text)
				}
			}
			return nil
		})
	}
	says(false, "hello/web: 1 of 2 ready", "canary: `dunnage promote -p hello`")
	h.must("rollout", "pause", "-p", "hello")
	says(true, "stands still: on request")
	if r := h.run(nil, "ps", "-p", "hello"); !strings.Contains(r.stderr, "web: canary: 1 of 2, release 1 serves meanwhile, with 2 ready (90 % of new connections), and release 2 with 1 (10 %); `dunnage rollout resume") {
		t.Errorf("ps: %s", r.stderr)
	}
}

// Doctor finds nothing wrong on a host where nothing is; says of a stopped
// containerd that it does no small write, soon; and removes what belongs to
// nobody, and nothing else.
func TestDoctor(t *testing.T) {
	h := newHost(t)
	h.mustDeploy(hello("v1", 2, ""))
	rs := h.ready(2)
	ours := map[string]bool{"disk": true, "rights": true} // those are the machine's, which may have its own troubles
	h.eventually(20*time.Second, "nothing is wrong", func() error {
		found, _ := h.doctor()
		for name, all := range found {
			for _, f := range all {
				if !f.OK && !ours[name] {
					return errors.New(name + ": " + f.Text)
				}
			}
		}
		return nil
	})
	found, _ := h.doctor()
	for _, name := range []string{"agent", "containerd", "ports", "sysctls", "logs", "connections", "leftovers", "disk", "clock", "cgroups", "conntrack", "rights", "runc", "kernel", "others", "host", "rules", "secrets", "services"} {
		if len(found[name]) == 0 {
			t.Errorf("%s isn't looked at", name)
		}
	}
	if f := found["containerd"]; !strings.Contains(f[0].Text, "the agent's own containerd") || !strings.Contains(f[0].Text, "answers a write in") {
		t.Errorf("%+v", f)
	}

	h.limitsAreLookedFor(rs[0])

	h.sh(t, "nft 'add table netdev early; add chain netdev early in { type filter hook ingress device wire priority 0; }; add rule netdev early in tcp dport 8080 drop'")
	found, _ = h.doctor()
	if f := found["ports"]; len(f) != 1 || !f[0].Warn || !strings.Contains(f[0].Text, "connections may die: nft netdev early in: hook ingress on wire") {
		t.Errorf("a chain at the link: %+v", f)
	}
	h.sh(t, "nft delete table netdev early")

	cont := h.stopPid(h.containerdPid())
	h.eventually(time.Minute, "the agent knows it", func() error {
		if ps := h.run(nil, "ps"); !strings.Contains(ps.stderr, "containerd") {
			return errors.New("ps tells of no problem")
		}
		return nil
	})
	began := time.Now()
	found, r := h.doctor()
	t.Logf("with containerd stopped it takes %s", time.Since(began))
	if r.code != 3 || found["containerd"][0].OK || !strings.Contains(found["containerd"][0].Next, "the agent restarts it") {
		t.Errorf("stopped: exit code %d, %+v", r.code, found["containerd"])
	}
	cont()

	files, volumes := h.lab.Path("state/files/elsewhere-web-0123abcd-1"), h.lab.Path("state/anonymous/elsewhere-web-0123abcd-1")
	for _, dir := range []string{files, volumes} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	h.eventually(20*time.Second, "what is left over is found", func() error {
		if found, r = h.doctor(); r.code == 3 && len(found["leftovers"]) == 2 {
			return nil
		}
		return errors.New(r.stdout)
	})
	found, r = h.doctor("--fix")
	if len(found["leftovers"]) != 2 || !strings.HasPrefix(found["leftovers"][0].Text, "removed: ") {
		t.Errorf("fixed: %+v %s", found["leftovers"], r.stderr)
	}
	for _, dir := range []string{files, volumes} {
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s is there still", dir)
		}
	}
	if found, _ = h.doctor(); len(found["leftovers"]) != 1 || !found["leftovers"][0].OK {
		t.Errorf("still left: %+v", found["leftovers"])
	}
	if after := h.ready(2); pids(after) != pids(rs) {
		t.Errorf("processes: %s, then %s", pids(rs), pids(after))
	}

	stopped := writerOf(t, rs[1].Replica)
	cont = h.stopPid(stopped)
	h.eventually(20*time.Second, "the replica whose log writer is stopped is named", func() error {
		if found, r = h.doctor(); r.code == 3 && len(found["logs"]) == 1 && strings.HasPrefix(found["logs"][0].Text, fmt.Sprintf("the log writer of %s, process %d, is stopped: ", rs[1].Replica, stopped)) {
			return nil
		}
		return errors.New(r.stdout)
	})
	if next := found["logs"][0].Next; next != fmt.Sprintf("`kill -CONT %d` lets it go on", stopped) {
		t.Errorf("the next step is %q", next)
	}
	cont()
	h.eventually(20*time.Second, "its writer goes on", func() error {
		if found, r = h.doctor(); len(found["logs"]) == 1 && found["logs"][0].OK {
			return nil
		}
		return errors.New(r.stdout)
	})

	if err := syscall.Kill(writerOf(t, rs[0].Replica), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	h.eventually(20*time.Second, "the replica without a log is named", func() error {
		if found, r = h.doctor(); r.code == 3 && len(found["logs"]) == 1 && strings.Contains(found["logs"][0].Text, rs[0].Replica) {
			return nil
		}
		return errors.New(r.stdout)
	})
	h.eventually(60*time.Second, "ps shows it, and it serves on", func() error {
		for _, r := range h.ready(2) {
			if (r.Replica == rs[0].Replica) != r.Unwritten || r.Unwritten && !strings.Contains(r.Detail, "`dunnage restart -p "+r.Project+" web-"+strconv.Itoa(r.Number)+"`") {
				return fmt.Errorf("%+v", r)
			}
		}
		return nil
	})

	cont = h.stopPid(h.lab.Pid("agent"))
	found, r = h.doctor()
	if r.code != 4 || len(found["agent"]) != 1 || found["agent"][0].OK || len(found["kernel"]) == 0 {
		t.Errorf("with the agent stopped: exit code %d, %+v %s", r.code, found, r.stderr)
	}
	cont()
	h.clean(h.ready(2))
}
