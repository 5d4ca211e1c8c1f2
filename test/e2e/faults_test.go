package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"dunnage/api"
	"dunnage/internal/testenv"
	"dunnage/spec"
)

// killPid kills a process as a crash would, and waits until it is gone.
func (h *host) killPid(pid int) {
	h.t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		h.t.Fatalf("kill %d: %v", pid, err)
	}
	h.eventually(10*time.Second, fmt.Sprintf("process %d is gone", pid), func() error {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(b), ") Z ") {
			return nil
		}
		return errors.New("it lives")
	})
}

// The agent may die at any time of a deploy: the next one finishes it, with no
// request lost, no process restarted that needn't be, and nothing left over.
func TestAgentKilledInMidDeploy(t *testing.T) {
	h := newHost(t)
	h.mustDeploy(hello("v1", 2, ""))
	h.ready(2)
	file := h.file("compose.yaml", hello("v2", 2, ""))
	back := h.file("back.yaml", hello("v1", 2, ""))
	h.underLoad(8080, func() {
		for i, after := range []time.Duration{5, 40, 80, 130, 200, 300, 450, 700} {
			next := []string{file, back}[i%2]
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			cmd := exec.CommandContext(ctx, h.agent.Program, "deploy", "-f", next)
			cmd.Env = append(os.Environ(), "DUNNAGE_HOST="+h.agent.URL())
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(after * time.Millisecond) // the moment of death is the test's input
			killAgent(h)
			_ = cmd.Wait() // the command lost its agent
			cancel()
			h.start()
			h.oneGeneration(2)
		}
	})
	h.clean(h.ready(2))
}

// killAgent kills the agent without asking it anything afterwards.
func killAgent(h *host) {
	h.t.Helper()
	pid := h.lab.Pid("agent")
	if pid == 0 { // as a target it is this process's own group
		h.t.Fatal("there is no agent to kill")
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		h.t.Fatalf("kill agent: %v", err)
	}
	for range 1000 {
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err != nil || strings.Contains(string(b), ") Z ") {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	h.t.Fatal("the agent survives SIGKILL")
}

// oneGeneration waits until n replicas of one generation are ready and no
// other replica is there.
func (h *host) oneGeneration(n int) {
	h.t.Helper()
	rs := h.ready(n)
	for _, r := range rs {
		if r.Generation != rs[0].Generation {
			h.t.Fatalf("two generations: %s and %s", r.Replica, rs[0].Replica)
		}
	}
}

func TestAgentRestartAdopts(t *testing.T) {
	h := newHost(t)
	h.mustDeploy(hello("v1", 3, ""))
	before := h.ready(3)
	h.underLoad(8080, func() {
		for range 10 {
			killAgent(h)
			h.start()
			if after := h.ready(3); pids(after) != pids(before) {
				t.Fatalf("processes: %s, then %s", pids(before), pids(after))
			}
		}
	})
	for _, r := range h.ready(3) {
		if r.Restarts != 0 {
			t.Errorf("%s counts %d restarts", r.Replica, r.Restarts)
		}
	}
	h.clean(h.ready(3))
}

// An agent whose store is gone knows nothing of what runs. It leaves it alone
// and says so, until it gets the store back or is told to remove it.
func TestStoreLost(t *testing.T) {
	h := newHost(t)
	h.mustDeploy(hello("v1", 2, ""))
	before := h.ready(2)
	db := h.lab.Path("state/dunnage.db")
	h.underLoad(8080, func() {
		killAgent(h)
		if err := os.Rename(db, db+".away"); err != nil {
			t.Fatal(err)
		}
		h.start()
		time.Sleep(3 * time.Second) // what must not happen needs its time
		if ps := h.run(nil, "ps"); ps.code != 0 || !strings.Contains(ps.stderr, "doesn't know 2 replicas") {
			t.Errorf("ps: %+v", ps)
		}
		if d := h.deploy(hello("v2", 2, "")); d.code != 1 || !strings.Contains(d.stderr, "--remove-unknown") {
			t.Errorf("deploy: %+v", d)
		}
		killAgent(h)
		if err := os.Rename(db+".away", db); err != nil {
			t.Fatal(err)
		}
		h.start()
		if after := h.ready(2); pids(after) != pids(before) {
			t.Errorf("processes: %s, then %s", pids(before), pids(after))
		}
	})
	h.clean(h.ready(2))

	killAgent(h)
	if err := os.Remove(db); err != nil {
		t.Fatal(err)
	}
	h.agent.Flags = []string{"--remove-unknown"}
	h.start()
	h.eventually(30*time.Second, "all is removed", func() error {
		if left := h.leftovers(nil); len(left) > 0 {
			return errors.New(strings.Join(left, ", "))
		}
		return nil
	})
}

// What an agent can have changed of the host's network, without counters, ages
// and what the kernel brings up to date by itself.
const hostNetwork = `ip -d -o link | sed 's/ promiscuity.*alias/ alias/'; ip -o addr; for f in -4 -6; do ip $f route show table all; done
ip neigh show nud permanent; iptables-save | grep -v '^#' | sed 's/\[[0-9:]*\]//'; ip6tables-save | grep -v '^#' | sed 's/\[[0-9:]*\]//'
sysctl -a 2>/dev/null | grep -E 'forwarding|ip_forward|rp_filter|route_localnet|accept_ra |disable_ipv6'
find $RUN/netns $RUN/replicas $RUN/visitor -printf '%p %i %s\n'
nsenter --net=$RUN/visitor sh -c 'ip -o addr; ip route; ip -6 route'`

// An agent that holds changes nothing of the host, whatever it was started with
// wrongly, and doctor says of it what is so. The right one then goes on as if it
// hadn't been.
func TestHeldAgentChangesNothing(t *testing.T) {
	h := newHost(t)
	h.mustDeploy(hello("v1", 2, ""))
	before := h.ready(2)
	look := func() string {
		return h.sh(t, "RUN="+h.agent.RunDir()+"; "+hostNetwork)
	}
	h.eventually(30*time.Second, "the visitor is there", func() error {
		_, err := os.Stat(filepath.Join(h.agent.RunDir(), "visitor"))
		return err
	})
	h.eventually(30*time.Second, "the kernel is done with the addresses of the links", func() error {
		if now := look(); strings.Contains(now, "tentative") {
			return errors.New(now)
		}
		return nil
	})
	was := look()
	h.underLoad(8080, func() {
		for _, wrong := range []struct{ flag, value, says string }{
			{"--pool", "10.99.0.0/16", "which isn't in --pool 10.99.0.0/16"},
			{"--pool6", "fd00:99::/48", "which isn't in --pool6 fd00:99::/48"},
			{"--state-dir", h.lab.Path("state2"), "doesn't know 2 replicas"},
		} {
			killAgent(h)
			h.agent.Flags = []string{wrong.flag, wrong.value}
			h.start()
			time.Sleep(4 * time.Second) // what must not happen needs its time: more than two looks
			if ps := h.run(nil, "ps"); !strings.Contains(ps.stderr, "the agent holds") || !strings.Contains(ps.stderr, wrong.says) {
				t.Errorf("%s: ps: %+v", wrong.flag, ps)
			}
			found, _ := h.doctor("--fix")
			for _, name := range []string{"logs", "connections", "leftovers"} {
				for _, f := range found[name] {
					if !f.OK {
						t.Errorf("%s: doctor: %+v", wrong.flag, f)
					}
				}
			}
			if f := found["rules"]; len(f) != 1 || strings.HasPrefix(wrong.flag, "--pool") && !strings.Contains(f[0].Text, "the agent holds") {
				t.Errorf("%s: rules: %+v", wrong.flag, f)
			}
			elsewhere := len(found["logs"]) == 2 && strings.Contains(found["logs"][0].Text+found["logs"][1].Text, "an agent with another --state-dir started it")
			if (wrong.flag == "--state-dir") != elsewhere {
				t.Errorf("%s: logs: %+v", wrong.flag, found["logs"])
			}
			if now := look(); now != was {
				t.Errorf("%s: the host's network is\n%s\nwas\n%s", wrong.flag, now, was)
			}
		}
		killAgent(h)
		h.agent.Flags = nil
		// What a held agent of an earlier version left, and what isn't anybody's.
		h.sh(t, "ip addr add 10.99.0.1/32 dev lo; ip route add unreachable 10.99.0.0/16 proto 213; ip route add 10.99.0.4 dev visit-dunnage src 10.99.0.1 proto 213"+
			"; ip route add local 10.99.0.2 dev lo src 10.99.0.1 table local proto 213; ip route add 203.0.113.0/24 via "+h.lab.Client.String()+" proto 213; touch "+h.agent.RunDir()+"/netns/foo")
		h.start()
		h.eventually(20*time.Second, "what was left is removed", func() error {
			if left := h.sh(t, "ip route show table all; ip addr"); strings.Contains(left, "10.99.") {
				return errors.New(left)
			}
			return nil
		})
	})
	found, _ := h.doctor()
	text := fmt.Sprint(found["leftovers"])
	if !strings.Contains(text, "/netns/foo isn't the agent's") || !strings.Contains(text, "ip route del 203.0.113.0/24") {
		t.Errorf("leftovers: %s", text)
	}
	h.sh(t, "ip route del 203.0.113.0/24; rm "+h.agent.RunDir()+"/netns/foo")
	if after := h.ready(2); pids(after) != pids(before) {
		t.Errorf("processes: %s, then %s", pids(before), pids(after))
	}
	if now := look(); now != was {
		t.Errorf("in the end the host's network is\n%s\nwas\n%s", now, was)
	}
	h.clean(before)
}

func TestContainerdKilledUnderLoad(t *testing.T) {
	h := newHost(t)
	h.mustDeploy(hello("v1", 2, ""))
	before := h.ready(2)
	h.underLoad(8080, func() {
		pid := h.containerdPid()
		h.killPid(pid)
		h.eventually(30*time.Second, "another containerd", func() error {
			if now := h.findContainerd(); now == 0 || now == pid {
				return errors.New("not yet")
			}
			return nil
		})
		h.mustDeploy(hello("v2", 2, ""))
	})
	if after := h.ready(2); pids(after) == pids(before) {
		t.Error("the deploy after the kill replaced nothing")
	}
	h.clean(h.ready(2))
}

// A private containerd whose socket somebody has removed is started again, by the
// agent that runs and by one that finds it so; containers and traffic go on.
func TestContainerdSocketRemoved(t *testing.T) {
	h := newHost(t)
	h.mustDeploy(hello("v1", 2, ""))
	before := h.ready(2)
	socket := h.lab.Path("run/containerd/containerd.sock")
	rep := h.underLoad(8080, func() {
		for _, agentDies := range []bool{false, true} {
			pid := h.containerdPid()
			if agentDies {
				killAgent(h)
			}
			if err := os.Remove(socket); err != nil {
				t.Fatal(err)
			}
			if agentDies {
				h.start()
			}
			h.eventually(30*time.Second, "a containerd that can be reached", func() error {
				if _, err := os.Lstat(socket); err != nil {
					return err
				}
				if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err == nil {
					return fmt.Errorf("the one before, process %d, lives", pid)
				}
				return nil
			})
			if !agentDies {
				told := "somebody removed containerd's socket " + socket
				h.eventually(10*time.Second, "an event", func() error {
					if all := h.must("events", "--no-follow"); !strings.Contains(all, told) {
						return fmt.Errorf("no %q in %s", told, all)
					}
					return nil
				})
			}
			if after := h.ready(2); pids(after) != pids(before) {
				t.Errorf("processes: %s, then %s", pids(before), pids(after))
			}
		}
	})
	if rep.Failed > 0 {
		t.Errorf("%d of %d requests failed", rep.Failed, rep.Asked)
	}
	h.mustDeploy(hello("v2", 2, ""))
	h.clean(h.ready(2))
}

func (h *host) containerdPid() int {
	h.t.Helper()
	pid := h.findContainerd()
	if pid == 0 {
		h.t.Fatal("no containerd")
	}
	return pid
}

// findContainerd looks for the process whose arguments name this host's files.
func (h *host) findContainerd() int {
	return h.findProcess(func(argv []string) bool {
		return filepath.Base(argv[0]) == "containerd" && strings.Contains(strings.Join(argv, " "), h.lab.Path("run/containerd"))
	})
}

func (h *host) findProcess(match func(argv []string) bool) int {
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range procs {
		b, err := os.ReadFile(p)
		if err != nil || len(b) == 0 {
			continue
		}
		if match(strings.Split(strings.TrimRight(string(b), "\x00"), "\x00")) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(p)))
			return pid
		}
	}
	return 0
}

// A killed shim takes its container's supervision along; the replica is
// replaced, but never beside a copy that still lives.
func TestShimKilled(t *testing.T) {
	h := newHost(t)
	h.mustDeploy(hello("v1", 1, "    restart: always\n"))
	r := h.ready(1)[0]
	shim := h.findProcess(func(argv []string) bool {
		line := strings.Join(argv, " ")
		return strings.HasPrefix(filepath.Base(argv[0]), "containerd-shim") && strings.Contains(line, "-namespace "+h.lab.Name+" ") && strings.Contains(line, "-id "+r.Replica)
	})
	if shim == 0 {
		t.Fatal("no shim")
	}
	copies := make(chan int, 1)
	stop := make(chan struct{})
	go func() { copies <- h.mostCopies(stop) }()
	h.killPid(shim)
	h.eventually(time.Minute, "another process", func() error {
		rs := h.ps()
		if len(rs) != 1 || rs[0].State != spec.StateReady || rs[0].Pid == r.Pid {
			return fmt.Errorf("%+v", rs)
		}
		return nil
	})
	close(stop)
	if n := <-copies; n != 1 {
		t.Errorf("%d live copies at once", n)
	}
	h.answers(8080, "version v1")
	h.clean(h.ready(1))
}

// mostCopies counts the containers' processes until stop is closed.
func (h *host) mostCopies(stop chan struct{}) int {
	most := 0
	for {
		select {
		case <-stop:
			return most
		default:
		}
		n := 0
		procs, _ := filepath.Glob("/proc/[0-9]*/cgroup")
		for _, p := range procs {
			cg, err := os.ReadFile(p)
			if err != nil || !strings.Contains(string(cg), "/"+h.lab.Name+"/") {
				continue
			}
			if exe, err := os.Readlink(filepath.Join(filepath.Dir(p), "exe")); err == nil && exe == "/hello" {
				n++
			}
		}
		most = max(most, n)
	}
}

// Two agents would take each other's rules for damage, or share a containerd. The
// second one is refused before it has made or started anything.
func TestSecondAgentIsRefused(t *testing.T) {
	h := newHost(t)
	dir := t.TempDir()
	agent := func(flags ...string) []string {
		return append([]string{h.agent.Program, "agent", "--containerd", "managed"}, flags...)
	}
	elsewhere := func(argv []string) []string { return append([]string{"unshare", "--net"}, argv...) }
	for _, tc := range []struct {
		argv []string
		want string
	}{
		{h.lab.OnHost(agent("--state-dir", dir+"/s", "--run-dir", dir+"/r")...), "another agent runs in this network namespace"},
		{elsewhere(agent("--state-dir", dir+"/s", "--run-dir", dir+"/r", "--socket", strings.TrimPrefix(h.agent.URL(), "unix://"))), "another agent listens there"},
		{elsewhere(agent("--state-dir", dir+"/s", "--run-dir", h.agent.RunDir())), "run directory " + h.agent.RunDir() + " is in use: another agent runs with it"},
		{elsewhere(agent("--state-dir", h.lab.Path("state"), "--run-dir", dir+"/r")), "another agent runs with this state directory"},
	} {
		out, err := exec.Command(tc.argv[0], tc.argv[1:]...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), tc.want) || strings.Count(string(out), "\n") != 1 {
			t.Errorf("%v: %s; want %q alone", err, out, tc.want)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("%q left %v, %v", tc.want, left, err)
		}
	}
	if _, err := h.agent.Run(t.Context(), nil, "ps"); err != nil {
		t.Error(err)
	}
}

// A client other than the command line can't store what can't be run.
func TestHostileProjectIsRefused(t *testing.T) {
	h := newHost(t)
	client, err := api.Dial(h.agent.URL(), api.Version{})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"../x", "a\x00b", "a\nb", strings.Repeat("x", 5000)} {
		_, err := client.Deploy(t.Context(), spec.DeployRequest{Project: spec.Project{Name: name}})
		if !errors.Is(err, spec.ErrRefused) {
			t.Errorf("project %.20q: %v", name, err)
		}
	}
	if rs := h.ps(); len(rs) != 0 {
		t.Errorf("replicas: %v", rs)
	}
}

// A killed workload is out of the rules and back before long.
func TestWorkloadKilled(t *testing.T) {
	h := newHost(t)
	h.mustDeploy(hello("v1", 2, "    restart: always\n"))
	before := h.ready(2)
	h.killPid(before[0].Pid)
	h.eventually(30*time.Second, "the replica is back", func() error {
		for _, r := range h.ps() {
			if r.Replica == before[0].Replica && r.State == spec.StateReady && r.Pid != before[0].Pid && r.Restarts == 1 {
				return nil
			}
		}
		return errors.New("not yet")
	})
	h.clean(h.ready(2))
}

// Damage done behind our back is made good.
func TestDamageIsRepaired(t *testing.T) {
	h := newHost(t)
	h.mustDeploy(hello("v1", 2, "    restart: always\n"))
	h.ready(2)
	onHost := func(argv ...string) {
		t.Helper()
		if out, err := exec.Command("nsenter", h.lab.OnHost(argv...)[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", argv, err, out)
		}
	}
	links := func() (names []string) {
		t.Helper()
		out, err := exec.Command("nsenter", h.lab.OnHost("ip", "-br", "link")[1:]...).Output()
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(out)) {
			if f := strings.Fields(line); strings.HasPrefix(f[0], "dun") {
				names = append(names, strings.Split(f[0], "@")[0])
			}
		}
		return names
	}
	namespace := func(replica string) string { return h.lab.Path("run/netns/" + replica) }
	for name, damage := range map[string]func(){
		"nat flushed": func() { onHost("iptables", "-t", "nat", "-F") },
		"everything flushed": func() {
			onHost("iptables", "-F")
			onHost("iptables", "-t", "nat", "-F")
			onHost("ip6tables", "-t", "nat", "-F")
		},
		"container deleted": func() {
			id := h.ready(2)[0].Replica
			_, _ = h.ctr("task", "kill", "-s", "SIGKILL", id)
			_, _ = h.ctr("task", "rm", "-f", id)
			_, _ = h.ctr("container", "rm", id)
		},
		"writable layer deleted": func() {
			r := h.ready(2)[0]
			if out, err := h.ctr("snapshots", "rm", r.Replica); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			h.killPid(r.Pid)
		},
		"link deleted": func() { onHost("ip", "link", "del", links()[0]) },
		"link down and up": func() {
			onHost("ip", "link", "set", links()[0], "down")
			onHost("ip", "link", "set", links()[0], "up")
		},
		"routes flushed": func() { onHost("ip", "route", "flush", "proto", "213") },
		"addresses gone inside, process killed": func() {
			r := h.ready(2)[0]
			if out, err := exec.Command("nsenter", "--net="+namespace(r.Replica), "ip", "addr", "flush", "dev", "eth0").CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			h.killPid(r.Pid)
		},
		"socket removed": func() {
			if err := os.Remove(h.lab.Path("agent.sock")); err != nil {
				t.Fatal(err)
			}
			h.eventually(30*time.Second, "the socket is there again", func() error {
				_, err := os.Lstat(h.lab.Path("agent.sock"))
				return err
			})
		},
		"directory in the place of the socket": func() {
			socket := h.lab.Path("agent.sock")
			if err := errors.Join(os.Remove(socket), os.Mkdir(socket, 0o700)); err != nil {
				t.Fatal(err)
			}
			h.eventually(30*time.Second, "the socket is there again", func() error {
				if r := h.run(nil, "ps"); r.code != 0 {
					return errors.New(r.stderr)
				}
				return nil
			})
		},
		"namespace unmounted": func() { onHost("umount", "-l", namespace(h.ready(2)[0].Replica)) },
	} {
		t.Run(name, func(t *testing.T) {
			h := h.in(t)
			damage()
			h.eventually(30*time.Second, "it answers on both replicas", func() error {
				for range 6 {
					if _, err := h.get(8080, "/"); err != nil {
						return err
					}
				}
				return nil
			})
			for _, r := range h.ready(2) {
				h.eventually(30*time.Second, "the namespace of "+r.Replica+" is mounted", func() error {
					return exec.Command("mountpoint", "-q", namespace(r.Replica)).Run()
				})
			}
			h.rulesEqual()
		})
	}
}

// While containerd hangs, the rules are kept all the same, but for a replica
// that dies meanwhile.
func TestRulesAreKeptWithoutContainerd(t *testing.T) {
	h := newHost(t)
	h.mustDeploy(hello("v1", 2, "    restart: always\n"))
	before := h.ready(2)
	containerd := h.findProcess(func(argv []string) bool {
		return filepath.Base(argv[0]) == "containerd" && strings.Contains(strings.Join(argv, " "), h.lab.Dir)
	})
	if containerd == 0 {
		t.Fatal("no containerd")
	}
	if err := syscall.Kill(containerd, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(containerd, syscall.SIGCONT) //nolint:errcheck // it was there
	h.eventually(30*time.Second, "the agent says that it can't look", func() error {
		if r := h.run(nil, "ps"); !strings.Contains(r.stderr, "containerd doesn't answer") {
			return errors.New(r.stderr)
		}
		return nil
	})
	if out, err := exec.Command("nsenter", h.lab.OnHost("iptables", "-t", "nat", "-F")[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	h.eventually(30*time.Second, "it answers", func() error {
		_, err := h.get(8080, "/")
		return err
	})
	h.rulesEqual()
	h.killPid(before[0].Pid)
	h.eventually(30*time.Second, "the dead one is shown", func() error {
		if r := h.run(nil, "ps"); !strings.Contains(r.stderr, "its process is gone, and containerd doesn't answer") {
			return errors.New(r.stdout + r.stderr)
		}
		return nil
	})
	h.eventually(30*time.Second, "no connection goes to the dead", func() error { // ps tells of it before the swap ends
		for range 20 {
			if _, err := h.get(8080, "/"); err != nil {
				return err
			}
		}
		return nil
	})
	if err := syscall.Kill(containerd, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	h.ready(2)
}

func TestAgentRefusesToStart(t *testing.T) {
	testenv.Root(t)
	tools, err := built()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	agent := filepath.Join(tools, "dunnage")
	args := []string{"agent", "--state-dir", dir + "/s", "--run-dir", dir + "/r", "--containerd", "managed"}
	usages := map[*exec.Cmd]bool{}
	usage := func(c *exec.Cmd) *exec.Cmd {
		usages[c] = true
		return c
	}
	for name, tc := range map[string]struct {
		cmd  *exec.Cmd
		want string
	}{
		"not root":        {exec.Command("setpriv", append([]string{"--reuid=65534", "--regid=65534", "--clear-groups", agent}, args...)...), "needs root"},
		"no iptables":     {exec.Command("unshare", append([]string{"--mount", "--net", "sh", "-c", "mount -t tmpfs none /usr/sbin && PATH=/usr/bin exec \"$@\"", "sh", agent}, args...)...), "iptables"},
		"no containerd":   {inPath(exec.Command("unshare", append([]string{"--net", agent}, args...)...), "/nowhere"), "apt install containerd"},
		"bad pool":        {exec.Command(agent, append(args, "--pool", "10.0.0.0")...), "--pool"},
		"every address":   {usage(exec.Command("unshare", append([]string{"--net", agent}, append(args, "--pool", "0.0.0.0/0")...)...)), "--pool 0.0.0.0/0: refused: it overlaps 0.0.0.0/8"},
		"the LAN as pool": {usage(exec.Command("unshare", append([]string{"--net", "sh", "-ec", "ip link add lan type veth peer name far; ip addr add 10.208.1.1/24 dev lan; exec \"$@\"", "sh", agent}, args...)...)), "pool 10.208.0.0/12 overlaps the host's address 10.208.1.1 of link lan"},
		"bad namespace":   {usage(exec.Command(agent, append(args, "--namespace", "../x")...)), "--namespace"},
		"bad containerd":  {exec.Command("unshare", append([]string{"--net", agent}, append(args, "--containerd", "/no/such.sock")...)...), "/no/such.sock"},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "not root" {
				if err := os.Chmod(tools, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			out, err := tc.cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), tc.want) {
				t.Fatalf("%v: %s; want %q", err, out, tc.want)
			}
			if usages[tc.cmd] && tc.cmd.ProcessState.ExitCode() != 2 {
				t.Errorf("%v: flags that can't be right", err)
			}
		})
	}
}

func inPath(c *exec.Cmd, path string) *exec.Cmd {
	c.Path, _ = exec.LookPath(c.Args[0])
	c.Env = append(os.Environ(), "PATH="+path)
	return c
}
