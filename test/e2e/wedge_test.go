package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"dunnage/spec"
)

// stopPid stops a process as SIGSTOP does, until cont is called.
func (h *host) stopPid(pid int) (cont func()) {
	h.t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		h.t.Fatalf("stop %d: %v", pid, err)
	}
	cont = func() { _ = syscall.Kill(pid, syscall.SIGCONT) } // it may have been killed
	h.t.Cleanup(cont)
	return cont
}

// restartWith starts the agent anew, with more flags.
func (h *host) restartWith(flags ...string) {
	h.t.Helper()
	killAgent(h)
	h.agent.Flags = append(h.agent.Flags, flags...)
	h.start()
}

// soon runs a verb that answers out of what the agent knows, and returns how
// long that took. In a test among others on a busy machine it may take longer
// than in a soak.
func (h *host) soon(args ...string) (result, time.Duration) {
	h.t.Helper()
	began := time.Now()
	r := h.run(nil, args...)
	took := time.Since(began)
	if limit := 10 * time.Second; took > limit {
		h.t.Errorf("dunnage %s took %s", strings.Join(args, " "), took)
	}
	return r, took
}

// A stopped agent keeps no command waiting for ever, nor silent: each names the
// agent's process while it waits, and a change says that it may be made yet.
func TestAgentStopped(t *testing.T) {
	h := newHost(t)
	pid := h.lab.Pid("agent")
	cont := h.stopPid(pid)
	archive := strings.Repeat("x", 4<<20) // more than a socket's buffers take
	type outcome struct {
		result
		took time.Duration
		verb string
	}
	commands := map[string][]string{
		archive:      {"image", "load"},
		"a password": {"secret", "set", "token"},
		"":           {"gc"},
		" ":          {"ps"},
	}
	ends := make(chan outcome)
	for stdin, args := range commands {
		go func() {
			began := time.Now()
			r := h.runIn(stdin, nil, args...)
			ends <- outcome{r, time.Since(began), strings.Join(args, " ")}
		}()
	}
	for range commands {
		o := <-ends
		if o.code != 4 || o.took > time.Minute {
			t.Errorf("%s: exit code %d after %s", o.verb, o.code, o.took)
		}
		for _, want := range []string{fmt.Sprintf("its process %d is stopped; still waiting", pid), fmt.Sprintf("`kill -CONT %d`", pid)} {
			if !strings.Contains(o.stderr, want) {
				t.Errorf("%s doesn't say %q: %s", o.verb, want, o.stderr)
			}
		}
		if o.verb != "ps" && (!strings.Contains(o.stderr, "it isn't known whether") || !strings.Contains(o.stderr, "then see `dunnage ")) {
			t.Errorf("%s doesn't say that it may have been done: %s", o.verb, o.stderr)
		}
	}
	cont()
	if r := h.runIn("a password", nil, "secret", "set", "token"); r.code != 0 || !strings.Contains(r.stdout, "version 1") {
		t.Errorf("set again: exit code %d: %s%s", r.code, r.stdout, r.stderr)
	}
}

func TestContainerdHangs(t *testing.T) {
	h := newHost(t)
	t.Run("stopped for a while", func(t *testing.T) { testContainerdStopped(t, h.in(t)) })
	t.Run("frozen for good", func(t *testing.T) { testWedgedContainerd(t, h.in(t)) })
	t.Run("a system's", func(t *testing.T) { testWedgedSystemContainerd(t, h.in(t)) })
}

// While containerd is stopped, traffic goes on, everything that can be known is
// answered at once, also by an agent that is started meanwhile, and afterwards
// what was asked for comes to be.
func testContainerdStopped(t *testing.T, h *host) {
	h.restartWith("--containerd-patience", "5m")
	h.mustDeploy(hello("v1", 2, ""))
	before := h.ready(2)
	frozen := time.Duration(rounds(5, 60)) * time.Second
	var slowest, converged time.Duration
	rep := h.underLoad(8080, func() {
		cont := h.stopPid(h.containerdPid())
		end := time.Now().Add(frozen)
		for round := 0; time.Now().Before(end); round++ {
			for _, verb := range [][]string{{"ps"}, {"events", "--no-follow"}, {"history", "-p", "hello"}} {
				r, took := h.soon(verb...)
				if r.code != 0 {
					t.Errorf("dunnage %s: exit code %d: %s", verb[0], r.code, r.stderr)
				}
				slowest = max(slowest, took)
			}
			if round == 0 { // an agent that knows nothing but the store and the kernel
				killAgent(h)
				h.start()
				r, _ := h.soon("ps", "--json")
				var rs []spec.ReplicaStatus
				if err := json.Unmarshal([]byte(r.stdout), &rs); err != nil || len(rs) != 2 || rs[0].State != spec.StateReady || rs[1].State != spec.StateReady {
					t.Errorf("ps of a new agent: %v, %s%s", err, r.stdout, r.stderr)
				}
				if !strings.Contains(r.stderr, "what the store and the kernel say") {
					t.Errorf("a new agent says %q", r.stderr)
				}
				if r, _ := h.soon("gc"); r.code == 0 || !strings.Contains(r.stderr, "does not answer") {
					t.Errorf("gc: exit code %d: %s", r.code, r.stderr)
				}
			}
			time.Sleep(200 * time.Millisecond)
		}
		cont()
		began := time.Now()
		h.mustDeploy(hello("v2", 2, ""))
		converged = time.Since(began)
	})
	if after := h.ready(2); pids(after) == pids(before) {
		t.Error("the deploy replaced nothing")
	}
	must := "0 failed, ps ≤ 1 s, converged ≤ 5 s after"
	ok := rep.Failed == 0 && (soakFile == "" || slowest <= time.Second && converged <= 5*time.Second)
	row(t, fmt.Sprintf("containerd stopped (SIGSTOP) for %s under load", frozen), must,
		fmt.Sprintf("%d of %d failed, ps %d ms, a deploy %.1f s after", rep.Failed, rep.Asked, slowest.Milliseconds(), converged.Seconds()), ok)
	h.clean(h.ready(2))
}

// A private containerd that stays frozen is killed and started again, and
// changes go on; one that answers slowly is left alone.
func testWedgedContainerd(t *testing.T, h *host) {
	h.restartWith("--containerd-patience", "2s")
	h.mustDeploy(hello("v1", 2, ""))
	before := h.ready(2)
	earlier := h.must("events", "--no-follow")
	wedged := h.containerdPid()
	h.underLoad(8080, func() {
		h.stopPid(wedged)
		h.eventually(time.Minute, "another containerd", func() error {
			if now := h.findContainerd(); now == 0 || now == wedged {
				return errors.New("not yet")
			}
			return nil
		})
		h.eventually(time.Minute, "the agent looks again", func() error {
			if r := h.run(nil, "ps"); strings.Contains(r.stderr, "containerd") {
				return errors.New(r.stderr)
			}
			return nil
		})
		if now := h.ready(2); pids(now) != pids(before) {
			t.Errorf("processes: %s, then %s", pids(before), pids(now))
		}
		h.mustDeploy(hello("v2", 2, ""))
	})
	if told := strings.TrimPrefix(h.must("events", "--no-follow"), earlier); !strings.Contains(told, "containerd restarted: containerd is wedged: no answer for ") || strings.Contains(told, "look at containers: ") {
		t.Errorf("of its own restart it tells: %s", told)
	}
	h.clean(h.ready(2))
}

// shimOf is the pid of a replica's shim.
func (h *host) shimOf(replica string) int {
	h.t.Helper()
	pid := h.findProcess(func(argv []string) bool {
		line := strings.Join(argv, " ") + " "
		return strings.HasPrefix(filepath.Base(argv[0]), "containerd-shim") && strings.Contains(line, "-namespace "+h.lab.Name+" ") && strings.Contains(line, "-id "+replica+" ")
	})
	if pid == 0 {
		h.t.Fatalf("no shim of %s", replica)
	}
	return pid
}

// hangShim stops the shim of one of hello's replicas and waits until it is named.
func (h *host) hangShim(r spec.ReplicaStatus) (shim int) {
	h.t.Helper()
	shim = h.shimOf(r.Replica)
	h.stopPid(shim)
	h.eventually(time.Minute, "the shim is named", func() error {
		rs := h.ps()
		i := slices.IndexFunc(rs, func(o spec.ReplicaStatus) bool { return o.Replica == r.Replica })
		want := fmt.Sprintf("its shim (process %d) doesn't answer containerd; it serves on, and is replaced alone by `dunnage restart -p %s web-%d`", shim, r.Project, r.Number)
		if i < 0 || rs[i].Detail != want || rs[i].Hung != shim || rs[i].State != spec.StateReady {
			return fmt.Errorf("%+v, want %q", rs, want)
		}
		return nil
	})
	return shim
}

// A shim that hangs is named; its replica serves on, others are deployed, and it
// is replaced alone, never with two copies of it. A restart of the service doesn't
// wait for one either.
func TestShimHangs(t *testing.T) {
	h := newHost(t)
	h.mustDeploy(hello("v1", 3, ""))
	before := h.ready(3)
	r := before[1]
	shim := h.hangShim(r)
	found, doctor := h.doctor()
	if i := slices.IndexFunc(found["services"], func(f spec.Finding) bool {
		return strings.HasPrefix(f.Text, r.Replica+": its shim") && strings.HasPrefix(f.Next, "`dunnage restart -p hello web-2` ")
	}); i < 0 || doctor.code != 3 {
		t.Errorf("doctor: %d, %+v", doctor.code, found["services"])
	}
	if events := h.events("hello"); !slices.ContainsFunc(events, func(e spec.Event) bool {
		return e.Replica == r.Replica && strings.Contains(e.Message, "doesn't answer")
	}) {
		t.Errorf("events: %+v", events)
	}
	h.answers(8080, "version v1")
	began := time.Now()
	for _, version := range []string{"v1", "v2"} {
		if r := h.run(nil, "deploy", "-f", h.file("other.yaml", strings.NewReplacer("name: hello", "name: other", "8080:80", "8081:80").Replace(hello(version, 1, "")))); r.code != 0 {
			t.Errorf("another project: %s%s", r.stdout, r.stderr)
		}
	}
	t.Logf("two deploys of another project beside it took %s", time.Since(began))
	h.must("down", "-p", "other")

	copies, stop := make(chan int, 1), make(chan struct{})
	go func() { copies <- h.mostCopies(stop) }()
	rep := h.underLoad(8080, func() {
		began = time.Now()
		h.must("restart", "-p", "hello", "web-2")
	})
	took := time.Since(began)
	after := h.ready(3)
	close(stop)
	if n := <-copies; n > 4 { // three replicas, and one that stands in
		t.Errorf("%d live copies at once", n)
	}
	t.Logf("the restart of the replica took %s, %d of %d requests failed", took.Round(10*time.Millisecond), rep.Failed, rep.Asked)
	for i := range after {
		if changed := after[i].Pid != before[i].Pid; changed != (i == 1) || after[i].Replica != before[i].Replica || after[i].Detail != "" || after[i].Restarts != 0 {
			t.Errorf("replica %d: %+v, before %+v", i+1, after[i], before[i])
		}
	}
	h.eventually(10*time.Second, "the shim is gone", func() error { // its parent, process 1, reaps it when it gets to run
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", shim)); err == nil {
			return fmt.Errorf("shim %d lives", shim)
		}
		return nil
	})

	for _, order := range []string{"start-first", "stop-first"} {
		h.mustDeploy(strings.Replace(hello("v1", 3, ""), "replicas: 3", "replicas: 3, update_config: {parallelism: 1, order: "+order+"}", 1))
		before := h.ready(3)
		h.hangShim(before[0])
		began := time.Now()
		h.must("restart", "-p", "hello", "web")
		took := time.Since(began)
		if after := h.ready(3); slices.ContainsFunc(after, func(r spec.ReplicaStatus) bool { return strings.Contains(pids(before), fmt.Sprint(r.Pid)) }) {
			t.Errorf("%s: %s, then %s", order, pids(before), pids(after))
		}
		t.Logf("%s: a restart of the service took %s", order, took.Round(10*time.Millisecond))
	}
	h.clean(h.ready(3))
}

// A containerd that isn't the agent's own is restarted by the command that its
// owner gave, and not without one.
func testWedgedSystemContainerd(t *testing.T, h *host) {
	h.mustDeploy(hello("v1", 1, ""))
	before := h.ready(1)
	wedged := h.containerdPid()
	h.restartWith("--containerd", h.lab.Path("run/containerd/containerd.sock"), "--containerd-patience", "2s")
	h.ready(1)
	h.stopPid(wedged)
	h.eventually(time.Minute, "the agent says what would help", func() error {
		if r := h.run(nil, "ps"); !strings.Contains(r.stderr, "containerd is wedged: no answer for ") || !strings.Contains(r.stderr, "--containerd-restart") {
			return errors.New(r.stderr)
		}
		return nil
	})
	if h.findContainerd() != wedged {
		t.Fatal("somebody else's containerd was restarted")
	}
	script := h.file("restart.sh", fmt.Sprintf("kill -9 %d\nsetsid containerd --config %s >/dev/null 2>&1 &\n", wedged, h.lab.Path("run/containerd/config.toml")))
	h.restartWith("--containerd-restart", "sh "+script)
	h.eventually(time.Minute, "another containerd", func() error {
		if now := h.findContainerd(); now == 0 || now == wedged {
			return errors.New("not yet")
		}
		return nil
	})
	h.eventually(time.Minute, "a deploy", func() error {
		if r := h.deploy(hello("v2", 1, "")); r.code != 0 {
			return errors.New(r.stderr)
		}
		return nil
	})
	if after := h.ready(1); pids(after) == pids(before) {
		t.Error("the deploy replaced nothing")
	}
	h.clean(h.ready(1))
}
