package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dunnage/spec"
	"dunnage/test/lab"
)

// smallDisk makes the agent's state directory an ext4 of so many MiB and inodes.
func (h *host) smallDisk(mib, inodes int) {
	h.t.Helper()
	dir, file := h.lab.Path("state"), filepath.Join(h.t.TempDir(), "disk")
	if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(file, nil, 0o600), os.Truncate(file, int64(mib)<<20)); err != nil {
		h.t.Fatal(err)
	}
	for _, argv := range [][]string{
		{"mkfs.ext4", "-q", "-N", fmt.Sprint(inodes), "-m", "5", "-E", "nodiscard", file},
		{"mount", "-o", "loop", file, dir}, // the lab's end unmounts it, and the loop device goes with that
	} {
		if out, err := lab.Output(h.t.Context(), argv...); err != nil {
			h.t.Fatalf("%v: %v %s", argv, err, out)
		}
	}
}

// space is what the state directory's file system has.
func (h *host) space() unix.Statfs_t {
	h.t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(h.lab.Path("state"), &st); err != nil {
		h.t.Fatal(err)
	}
	return st
}

func (h *host) filler() string { return h.lab.Path("state", "filler") }

// fillBytes leaves so many bytes, root's reserve included.
func (h *host) fillBytes(left int64) {
	h.t.Helper()
	if err := os.MkdirAll(h.filler(), 0o700); err != nil {
		h.t.Fatal(err)
	}
	f, err := os.OpenFile(filepath.Join(h.filler(), "bytes"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		h.t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 4096)
	for {
		st := h.space()
		n := min(int64(st.Bfree)*st.Bsize-left, 1<<20)
		if n < 4096 && left > 0 {
			break
		}
		if _, err := f.Write(make([]byte, max(n, 4096))); errors.Is(err, syscall.ENOSPC) {
			for _, err = f.Write(block); err == nil; _, err = f.Write(block) {
			}
			break
		} else if err != nil {
			h.t.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil && !errors.Is(err, syscall.ENOSPC) {
		h.t.Fatal(err)
	}
}

// fillInodes takes them all.
func (h *host) fillInodes() {
	h.t.Helper()
	if err := os.MkdirAll(h.filler(), 0o700); err != nil {
		h.t.Fatal(err)
	}
	for i := 0; ; i++ {
		f, err := os.OpenFile(filepath.Join(h.filler(), fmt.Sprint("inode", i)), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if errors.Is(err, syscall.ENOSPC) {
			return
		}
		if err != nil {
			h.t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			h.t.Fatal(err)
		}
	}
}

func (h *host) free() {
	h.t.Helper()
	if err := os.RemoveAll(h.filler()); err != nil {
		h.t.Fatal(err)
	}
}

// TestFullHost: a host whose disk has no space, no space but root's reserve, or no
// inodes serves on, answers questions, restarts what dies, refuses a deploy with
// the numbers, and goes on by itself when there is room.
func TestFullHost(t *testing.T) {
	h := newBareHost(t)
	h.smallDisk(192, 6000)
	h.start()
	if err := h.agent.LoadImages(t.Context(), h.tools, "hello-v1", "hello-v2"); err != nil {
		t.Fatal(err)
	}
	manifest := func(version string) string {
		text := hello(version, 2, "      on_unhealthy: none\n    restart: always\n")
		return strings.Replace(text, "path: /healthz}", "path: /healthz}, interval: 200ms, timeout: 300ms, retries: 2", 1)
	}
	h.mustDeploy(manifest("v2"))
	h.mustDeploy(manifest("v1"))
	h.ready(2)
	version := "v1"
	kinds := []struct {
		name string
		fill func(*host)
		says string
	}{
		{"no space", func(h *host) { h.fillBytes(0) }, "has 0 B of"},
		{"no inodes", (*host).fillInodes, "inodes free"},
		{"only root's reserve", func(h *host) { st := h.space(); h.fillBytes(int64(st.Bfree-st.Bavail) * st.Bsize) }, "has 0 B of"},
	}
	for _, c := range kinds[:rounds(2, len(kinds))] {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			h := h.in(t)
			c.fill(h)
			defer h.free()
			before := h.ready(2)
			h.underLoad(8080, func() {
				for _, verb := range []string{"ps", "logs --tail 5 -p hello", "events --no-follow", "df", "gc --dry-run", "gc", "stats --no-stream", "history -p hello", "explain 8080", "net rules"} {
					if r := h.run(nil, strings.Fields(verb)...); r.code != 0 {
						t.Errorf("dunnage %s: exit code %d\n%s%s", verb, r.code, r.stdout, r.stderr)
					}
				}
				var gone spec.Collection // logs of replicas that are gone
				if err := json.Unmarshal([]byte(h.must("gc", "--all", "--json")), &gone); err != nil || gone.Freed.Inodes < 1 || gone.Problem != "" {
					t.Errorf("gc: %v, %+v", err, gone)
				}
				if f, _ := h.doctor(); f["disk"][0].OK {
					t.Errorf("doctor: %+v", f["disk"])
				}
				next := other[version]
				if r := h.plan(manifest(next)); r.code != 0 || !strings.Contains(r.stdout, "the deploy doesn't fit") {
					t.Errorf("plan: %+v", r)
				}
				r := h.deploy(manifest(next))
				if text := r.stdout + r.stderr; r.code != 1 || !strings.Contains(text, "the deploy doesn't fit") || !strings.Contains(text, c.says) || !strings.Contains(text, "dunnage df") {
					t.Errorf("deploy: %+v", r)
				}
				if after := h.ready(2); pids(after) != pids(before) {
					t.Errorf("a refused deploy changed replicas: %+v", after)
				}
			})
			h.unwellLeavesTheRules(before[0])
			h.diesAndComesBack(before[0])
			if err := h.lab.Stop(t.Context(), "agent"); err != nil {
				t.Fatal(err)
			}
			h.underLoad(8080, func() {
				h.start()
				pid := h.containerdPid()
				h.killPid(pid)
				h.eventually(30*time.Second, "another containerd", func() error {
					if now := h.findContainerd(); now == pid || now == 0 {
						return errors.New("there is none")
					}
					return nil
				})
			})
			h.diesAndComesBack(h.ready(2)[1])
			h.free()
			version = other[version]
			h.underLoad(8080, func() { h.mustDeploy(manifest(version)) })
			h.answers(8080, "version "+version)
			h.clean(h.ready(2))
		})
	}
}

// unwellLeavesTheRules stops the replica's process for a while.
func (h *host) unwellLeavesTheRules(r spec.ReplicaStatus) {
	h.t.Helper()
	routed := func(want bool) error {
		for _, now := range h.ps() {
			if now.Replica == r.Replica && now.Routed != want {
				return fmt.Errorf("%s: routed %v, %s", now.Replica, now.Routed, now.State)
			}
		}
		return nil
	}
	if err := syscall.Kill(r.Pid, syscall.SIGSTOP); err != nil {
		h.t.Fatal(err)
	}
	h.eventually(20*time.Second, "an unwell replica leaves the rules", func() error { return routed(false) })
	if err := syscall.Kill(r.Pid, syscall.SIGCONT); err != nil {
		h.t.Fatal(err)
	}
	h.eventually(20*time.Second, "a replica that is well again is back in the rules", func() error { return routed(true) })
}

// diesAndComesBack kills the replica's process.
func (h *host) diesAndComesBack(r spec.ReplicaStatus) {
	h.t.Helper()
	if err := syscall.Kill(r.Pid, syscall.SIGKILL); err != nil {
		h.t.Fatal(err)
	}
	h.eventually(30*time.Second, "a replica that died is back", func() error {
		for _, now := range h.ps() {
			if now.Replica == r.Replica && (now.Pid == r.Pid || now.State != spec.StateReady) {
				return fmt.Errorf("%s is %s: %s", now.Replica, now.State, now.Detail)
			}
		}
		return nil
	})
}

// TestOutgrownReplica: a replica that writes more than x-dunnage.disk over its
// image is replaced without a failed request, and starts with an empty layer.
func TestOutgrownReplica(t *testing.T) {
	h := newHost(t)
	h.mustDeploy(hello("v1", 2, "      disk: 10M\n"))
	before := h.ready(2)
	much := func(pid int) string { return fmt.Sprintf("/proc/%d/root/much", pid) }
	h.underLoad(8080, func() {
		if err := os.WriteFile(much(before[1].Pid), make([]byte, 12<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		h.eventually(90*time.Second, "the replica is replaced", func() error {
			rs := h.ps()
			if len(rs) != 2 {
				return fmt.Errorf("%d replicas", len(rs))
			}
			r := rs[1]
			if r.Restarts != 1 || r.State != spec.StateReady || !strings.Contains(r.Detail, "was stopped with 12.0 MiB in its writable layer") {
				return fmt.Errorf("%s: %s, %d restarts: %s", r.Replica, r.State, r.Restarts, r.Detail)
			}
			if _, err := os.Stat(much(r.Pid)); !os.IsNotExist(err) {
				return fmt.Errorf("%s has what it wrote: %v", r.Replica, err)
			}
			return nil
		})
	})
	if text := h.must("events", "--no-follow"); strings.Count(text, "over its image, and x-dunnage.disk is 10.0 MiB") != 1 {
		t.Errorf("the events don't tell of it once:\n%s", text)
	}
	if after := h.ready(2); after[0].Pid != before[0].Pid {
		t.Errorf("the other replica was touched too: %+v, then %+v", before[0], after[0])
	}
	h.clean(h.ready(2))
}

// other is the version that isn't this one.
var other = map[string]string{"v1": "v2", "v2": "v1"}

// TestDiskFullInDeploy: a disk that fills up at any moment of a deploy, and one
// that refuses any write of the store, fail no request and leave the old state or
// the new one, and the next deploy with room works.
func TestDiskFullInDeploy(t *testing.T) {
	h := newBareHost(t)
	h.smallDisk(192, 6000)
	h.start()
	if err := h.agent.LoadImages(t.Context(), h.tools, "hello-v1", "hello-v2"); err != nil {
		t.Fatal(err)
	}
	h.mustDeploy(hello("v1", 2, ""))
	h.ready(2)
	version, torn := "v1", 0
	try := func(what string, fail func(deploy func())) {
		t.Helper()
		h.underLoad(8080, func() {
			fail(func() { h.deploy(hello(other[version], 2, "")) })
			h.ready(2)
		})
		desired := h.must("history", "-p", "hello", "--json")
		if err := h.lab.Stop(t.Context(), "agent"); err != nil {
			t.Fatal(err)
		}
		h.start()
		if again := h.must("history", "-p", "hello", "--json"); again != desired {
			torn++
			t.Errorf("%s: the store has another state than the agent had\n%s\n%s", what, desired, again)
		}
		h.underLoad(8080, func() { h.mustDeploy(hello(other[version], 2, "")) })
		version = other[version]
		h.answers(8080, "version "+version)
	}
	fills := rounds(1, 40)
	for i := range fills {
		delay := time.Duration(i+1) * 900 * time.Millisecond / time.Duration(fills+1) // of a deploy that takes about as long
		try(fmt.Sprintf("full after %s", delay), func(deploy func()) {
			done := make(chan struct{})
			go func() {
				defer close(done)
				time.Sleep(delay)
				h.fillBytes(0)
			}()
			deploy()
			<-done
			time.Sleep(300 * time.Millisecond) // what went on after the deploy's end meets it too
			h.free()
		})
	}
	writes := rounds(1, 30)
	for n := range writes {
		try(fmt.Sprintf("write %d of the store fails", n+1), func(deploy func()) { h.refuseWrites(n+1, deploy) })
	}
	row(t, "Disk-full injected in a deploy", "no torn state, 0 failed requests",
		fmt.Sprintf("%d deploys with a disk that filled up, %d with a refused write of the store: %d torn, 0 failed", fills, writes, torn), torn == 0)
}

// refuseWrites lets the nth write of the store of each of the agent's threads
// fail, and the nth sync, while f runs.
func (h *host) refuseWrites(n int, f func()) {
	h.t.Helper()
	log := filepath.Join(h.t.TempDir(), "strace")
	cmd := exec.Command("strace", "-f", "-qq", "-o", log, "-P", h.lab.Path("state", "dunnage.db"),
		"-e", "trace=pwrite64,fdatasync,fsync", "-e", fmt.Sprintf("inject=pwrite64,fdatasync,fsync:error=ENOSPC:when=%d", n), "-p", fmt.Sprint(h.lab.Pid("agent")))
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.eventually(10*time.Second, "the agent is traced", func() error {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", h.lab.Pid("agent")))
		if err == nil && strings.Contains(string(b), "TracerPid:\t0\n") {
			err = errors.New("it isn't")
		}
		return err
	})
	f()
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		h.t.Error(err)
	}
	// It ends by the signal, unless the agent begins a program just then: strace may
	// wait for that one for ever, while it holds it and the agent's thread. Once
	// the tracer is dead, whom it traced goes on.
	stuck := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
	_ = cmd.Wait()
	stuck.Stop()
	if b, err := os.ReadFile(log); err != nil || n < 5 && !strings.Contains(string(b), "(INJECTED)") {
		h.t.Errorf("nothing was refused: %v %s", err, b)
	}
}

// TestLoadBeyondTheDisk: an archive that fits neither the disk nor its budget is
// refused before anything of it is written; one whose layers are stored never is.
func TestLoadBeyondTheDisk(t *testing.T) {
	h := newBareHost(t)
	h.smallDisk(192, 6000)
	h.agent.Flags = []string{"--config", h.file("config.yaml", "disk: {budget: 100M}\n")}
	h.start()
	stored := h.shopArchive(1, 12<<20)
	if err := os.Rename(stored, stored+".1"); err != nil {
		t.Fatal(err)
	}
	stored += ".1"
	h.must("image", "load", stored)
	large := h.shopArchive(2, 40<<20)
	zipped := large + ".gz"
	if out, err := lab.Output(t.Context(), "sh", "-c", `gzip -1 <"$0" >"$1"`, large, zipped); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	inUse := func() int64 { st := h.space(); return int64(st.Blocks-st.Bfree) * st.Bsize }
	refused := func(what string, r result, says string) {
		t.Helper()
		for _, want := range []string{"the archive doesn't fit: its new layers need about 16", "(40.", says, "`dunnage gc` would free ", "`dunnage df` shows"} {
			if r.code != 1 || !strings.Contains(r.stderr, want) {
				t.Errorf("%s: %d, it doesn't say %q: %s", what, r.code, want, r.stderr)
			}
		}
	}
	before := inUse()
	const budget = "of the budget of 100.0 MiB are in use"
	refused("a file", h.run(nil, "image", "load", large), budget)
	refused("with gzip", h.run(nil, "image", "load", "-i", zipped), budget)
	shell := exec.CommandContext(t.Context(), "sh", "-c", `exec "$0" image load <"$1"`, h.agent.Program, large)
	shell.Env = append(os.Environ(), "DUNNAGE_HOST="+h.agent.URL())
	if out, err := shell.CombinedOutput(); err == nil || !strings.Contains(string(out), budget) {
		t.Errorf("a file on standard input: %v, %s", err, out)
	}
	if grown := inUse() - before; grown > 1<<20 {
		t.Errorf("%d bytes of refused archives have been written", grown)
	}
	// Too little for a deploy, and plenty for a few manifests.
	st := h.space()
	h.fillBytes(int64(st.Bfree-st.Bavail)*st.Bsize + 14<<20)
	refused("on a full disk", h.run(nil, "image", "load", large), "the file system of ")
	if out := h.must("image", "load", stored); !strings.Contains(out, "loaded docker.io/library/shop:1 ") {
		t.Errorf("an archive that is stored: %s", out)
	}
	if images := h.must("image", "ls"); !strings.Contains(images, "shop:1") || strings.Contains(images, "shop:2") {
		t.Errorf("images:\n%s", images)
	}
}
