package testenv

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Daemon is a private containerd with directories, socket and namespace of
// its own. The end of the test takes away all that was started with it.
type Daemon struct {
	Address   string // of its socket
	Namespace string // unique; also the parent cgroup of its containers
	Dir       string // short, on a disk file system; tests may use sub-directories
	Pid       int

	t    testing.TB
	cmd  *exec.Cmd
	done chan struct{} // closed when cmd has ended
}

// daemonConfig has nothing that a single host's engine doesn't need.
const daemonConfig = `version = 2
root = "%[1]s/root"
state = "%[1]s/state"
disabled_plugins = [
  "io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
]
[grpc]
  address = "%[1]s/c.sock"
`

// Containerd starts a private containerd; it answers when the call returns.
func Containerd(t testing.TB) *Daemon {
	t.Helper()
	Root(t)
	dir, err := os.MkdirTemp("", "dt") // not t.TempDir: a socket's path may have 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	d := &Daemon{Address: dir + "/c.sock", Namespace: filepath.Base(dir), Dir: dir, t: t}
	t.Cleanup(d.clean)
	if err := os.Chmod(dir, 0o711); err != nil { // container users pass through it to their volumes
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/config.toml", fmt.Appendf(nil, daemonConfig, dir), 0o644); err != nil {
		t.Fatal(err)
	}
	d.Start()
	return d
}

// Start starts the daemon again after Kill.
func (d *Daemon) Start() {
	d.t.Helper()
	log, err := os.OpenFile(d.Dir+"/containerd.log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		d.t.Fatal(err)
	}
	defer log.Close()
	d.cmd = exec.Command("containerd", "--config", d.Dir+"/config.toml", "--log-level", "debug")
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := d.cmd.Start(); err != nil {
		d.t.Fatalf("start containerd (apt install containerd): %v", err)
	}
	d.Pid = d.cmd.Process.Pid
	d.done = make(chan struct{})
	go func() {
		_ = d.cmd.Wait() // killed
		close(d.done)
	}()
	d.waitSocket()
}

func (d *Daemon) waitSocket() {
	d.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if c, err := net.Dial("unix", d.Address); err == nil {
			_ = c.Close()
			return
		}
		select {
		case <-d.done:
			log, _ := os.ReadFile(d.Dir + "/containerd.log") // as much as there is
			d.t.Fatalf("containerd ended:\n%s", log)
		default:
		}
	}
	d.t.Fatal("containerd does not answer within 20s")
}

// Kill ends the daemon with SIGKILL. Shims and containers live on.
func (d *Daemon) Kill() {
	d.t.Helper()
	if err := d.cmd.Process.Kill(); err != nil {
		d.t.Fatal(err)
	}
	<-d.done
}

// Signal sends the daemon a signal.
func (d *Daemon) Signal(s syscall.Signal) {
	d.t.Helper()
	Signal(d.t, d.Pid, s)
}

// Signal sends a process a signal. After SIGSTOP it waits until every thread has
// stopped: one that hasn't yet may still answer a request.
func Signal(t testing.TB, pid int, s syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, s); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); s == syscall.SIGSTOP && !stopped(pid); {
		if time.Now().After(end) {
			t.Fatalf("process %d doesn't stop", pid)
		}
		time.Sleep(time.Millisecond)
	}
}

// stopped reports whether all threads of the process are in state T.
func stopped(pid int) bool {
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(stats) == 0 {
		return false
	}
	return !slices.ContainsFunc(stats, func(path string) bool {
		b, err := os.ReadFile(path)
		_, rest, found := strings.Cut(string(b), ") ") // the name before it may hold anything else
		return err == nil && (!found || !strings.HasPrefix(rest, "T"))
	})
}

// Shims lists the shims of the containers, by what stands in their arguments.
func (d *Daemon) Shims() []int {
	return processes(func(args []string) bool {
		return len(args) > 0 && strings.Contains(filepath.Base(args[0]), "containerd-shim") && slices.Contains(args, d.Address)
	})
}

// ShimsOf lists the shims of one container, also one that is just being started.
func (d *Daemon) ShimsOf(id string) []int {
	return processes(func(args []string) bool {
		return slices.Contains(args, d.Address) && slices.Contains(args, "-id") && slices.Contains(args, id)
	})
}

// Shim is the shim of one container.
func (d *Daemon) Shim(id string) int {
	d.t.Helper()
	pids := d.ShimsOf(id)
	if len(pids) != 1 {
		d.t.Fatalf("shims of %s: %v", id, pids)
	}
	return pids[0]
}

// processes lists the living processes whose arguments match.
func processes(match func(args []string) bool) []int {
	names, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is right
	var pids []int
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil { // ended in between
			continue
		}
		if match(strings.Split(string(b), "\x00")) {
			if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name))); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// clean ends daemon, shims and containers and removes cgroups, mounts and files.
func (d *Daemon) clean() {
	if d.t.Failed() {
		d.tailLog()
	}
	if d.cmd != nil && d.cmd.Process != nil {
		_ = d.cmd.Process.Signal(syscall.SIGCONT) // may have ended already
		_ = d.cmd.Process.Kill()
		<-d.done
	}
	groups, _ := filepath.Glob("/sys/fs/cgroup/*/" + d.Namespace)
	groups = append(groups, "/sys/fs/cgroup/"+d.Namespace)
	// Shims first: they would restart nothing, but report to nobody.
	for _, pid := range d.Shims() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline) && killGroups(groups) > 0; {
		time.Sleep(5 * time.Millisecond)
	}
	for _, g := range groups {
		removeGroup(g)
	}
	d.removeFiles()
}

// removeFiles tries again for a while: what a shim started last may still write.
func (d *Daemon) removeFiles() {
	var err error
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		unmountBelow(d.Dir)
		if err = errors.Join(os.RemoveAll(d.Dir), os.RemoveAll("/run/containerd/runc/"+d.Namespace)); err == nil {
			return
		}
	}
	d.t.Errorf("clean up: %v", err)
}

func (d *Daemon) tailLog() {
	log, err := os.ReadFile(d.Dir + "/containerd.log")
	if err != nil {
		return
	}
	lines := strings.Split(string(log), "\n")
	d.t.Logf("last lines of containerd's log:\n%s", strings.Join(lines[max(0, len(lines)-25):], "\n"))
}

// killGroups kills every process of the groups and returns how many there were.
func killGroups(groups []string) (n int) {
	for _, g := range groups {
		_ = filepath.WalkDir(g, func(path string, e os.DirEntry, err error) error {
			if err != nil || e.Name() != "cgroup.procs" {
				return nil //nolint:nilerr // gone in between
			}
			b, _ := os.ReadFile(path) // likewise
			for f := range strings.FieldsSeq(string(b)) {
				if pid, err := strconv.Atoi(f); err == nil && pid > 1 {
					_ = syscall.Kill(pid, syscall.SIGKILL)
					n++
				}
			}
			return nil
		})
	}
	return n
}

// removeGroup removes a cgroup and those below it, children first.
func removeGroup(group string) {
	entries, _ := os.ReadDir(group) // none if it is gone
	for _, e := range entries {
		if e.IsDir() {
			removeGroup(filepath.Join(group, e.Name()))
		}
	}
	_ = syscall.Rmdir(group)
}

// unmountBelow takes away what is mounted below dir, last mount first.
func unmountBelow(dir string) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return
	}
	lines := strings.Split(string(b), "\n")
	slices.Reverse(lines)
	for _, line := range lines {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			_ = syscall.Unmount(f[4], syscall.MNT_DETACH)
		}
	}
}

// Context is a context that ends with the test, and after a minute at most.
func Context(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}
