package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Down stops the lab's processes and removes its namespaces, mounts, cgroups
// and folder. What isn't there is success.
func (l *Lab) Down(ctx context.Context) error {
	errs := []error{l.stopRecorded(ctx)}
	cgroups, err := l.killAll(ctx)
	errs = append(errs, err, l.unmount(), removeCgroups(ctx, cgroups), l.removeNetwork(ctx))
	errs = append(errs, os.RemoveAll(l.Dir))
	return errors.Join(errs...)
}

// killAll kills the lab's processes, also those that one of them starts in its
// last moment, and returns the cgroups that they leave.
func (l *Lab) killAll(ctx context.Context) ([]string, error) {
	var cgroups []string
	err := Await(ctx, stopLimit, func() error {
		procs := l.processes()
		if len(procs) == 0 {
			return nil
		}
		cgroups = append(cgroups, cgroupsOf(procs)...)
		return errors.Join(kill(ctx, procs), fmt.Errorf("there were %d processes", len(procs)))
	})
	return append(cgroups, l.ownCgroups()...), err
}

func (l *Lab) removeNetwork(ctx context.Context) error {
	if l.OnMachine {
		return nil
	}
	var errs []error
	for _, ns := range []string{l.clientNS(), l.hostNS()} {
		if _, err := os.Stat(nsPath(ns)); err == nil {
			_, err := Output(ctx, "ip", "netns", "del", ns)
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Reboot does to the host what a power cycle does: every process is killed at
// once; mounts, cgroups, rules and the agent's run directory are gone; the
// state directory is as it was.
func (l *Lab) Reboot(ctx context.Context) error {
	cgroups, err := l.killAll(ctx)
	err = errors.Join(err, l.unmount(), removeCgroups(ctx, cgroups), l.removeNetwork(ctx), os.RemoveAll(l.Path("run")))
	if err != nil {
		return err
	}
	return l.addNetwork(ctx)
}

func (l *Lab) pids() string { return l.Path("pids") }

// record keeps pid and start time: a pid alone may be another process by the
// time that it is to be stopped.
func (l *Lab) record(name string, pid int) error {
	started, err := startTime(pid)
	if err != nil {
		return fmt.Errorf("%s ended at once; see %s", name, l.Path(name+".log"))
	}
	text := fmt.Sprintf("%d %s\n", pid, started)
	if err := os.WriteFile(filepath.Join(l.pids(), name), []byte(text), 0o600); err != nil {
		return fmt.Errorf("record pid of %s: %w", name, err)
	}
	return nil
}

// startTime is field 22 of /proc/PID/stat, in ticks since boot. A zombie is gone.
func startTime(pid int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	// The second field, the command in parentheses, may contain spaces.
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	if len(f) < 20 || f[0] == "Z" {
		return "", os.ErrNotExist
	}
	return f[19], nil
}

// Pid returns the process that Start started under name, 0 if it is gone.
func (l *Lab) Pid(name string) int {
	b, err := os.ReadFile(filepath.Join(l.pids(), name))
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b))
	if len(f) != 2 {
		return 0
	}
	pid, err := strconv.Atoi(f[0])
	if err != nil {
		return 0
	}
	if now, err := startTime(pid); err != nil || now != f[1] {
		return 0
	}
	return pid
}

// stopRecorded asks the started processes to end.
func (l *Lab) stopRecorded(ctx context.Context) error {
	entries, err := os.ReadDir(l.pids())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read recorded pids: %w", err)
	}
	var errs []error
	for _, e := range entries {
		errs = append(errs, l.Stop(ctx, e.Name()))
	}
	return errors.Join(errs...)
}

// stopLimit is what a daemon gets between SIGTERM and SIGKILL.
const stopLimit = 10 * time.Second

// Stop ends the process that was started under name.
func (l *Lab) Stop(ctx context.Context, name string) error {
	pid := l.Pid(name)
	if pid == 0 {
		return nil
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop %s: %w", name, err)
	}
	gone := func() error {
		if l.Pid(name) != 0 {
			return fmt.Errorf("%s (pid %d) is still there", name, pid)
		}
		return nil
	}
	if Await(ctx, stopLimit, gone) == nil {
		return nil
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill %s: %w", name, err)
	}
	return Await(ctx, stopLimit, gone)
}

// processes lists what still runs out of the lab's folder: daemons and shims,
// whose arguments name it, and containers, whose root is mounted from it.
func (l *Lab) processes() []int {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil { // the pattern is a constant
		panic(err)
	}
	var pids []int
	for _, d := range dirs {
		pid, err := strconv.Atoi(filepath.Base(d))
		if err != nil || pid == os.Getpid() || pid == os.Getppid() {
			continue
		}
		if l.named(d) || l.rooted(d) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// daemons are the programs that the lab's processes may have left behind. A
// user's `tail -f` of a log names the folder too and isn't ours to end.
var daemons = []string{"dunnage", "dunnage-log", "dunnage-init", "containerd", "containerd-shim-runc-v2", "dockerd", "docker-proxy", "conmon", "podman", "runc", "rootlessport"}

func (l *Lab) named(proc string) bool {
	b, err := os.ReadFile(filepath.Join(proc, "cmdline"))
	program, _, _ := strings.Cut(string(b), "\x00")
	return err == nil && slices.Contains(daemons, filepath.Base(program)) && strings.Contains(string(b), l.Dir+"/")
}

func (l *Lab) rooted(proc string) bool {
	f, err := os.Open(filepath.Join(proc, "mountinfo"))
	if err != nil {
		return false
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if fields := strings.Fields(s.Text()); len(fields) > 4 && fields[4] == "/" {
			return strings.Contains(s.Text(), l.Dir+"/")
		}
	}
	return false
}

// kill ends the processes and waits until they are gone.
func kill(ctx context.Context, pids []int) error {
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("kill %d: %w", pid, err)
		}
	}
	return Await(ctx, stopLimit, func() error {
		for _, pid := range pids {
			if _, err := startTime(pid); err == nil {
				return fmt.Errorf("process %d is still there", pid)
			}
		}
		return nil
	})
}

// unmount detaches every mount under the lab's folder, the last one first.
func (l *Lab) unmount() error {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("read mounts: %w", err)
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	slices.Reverse(lines)
	var errs []error
	for _, line := range lines {
		f := strings.Fields(line)
		if len(f) < 5 || !strings.HasPrefix(f[4], l.Dir+"/") {
			continue
		}
		if err := syscall.Unmount(f[4], syscall.MNT_DETACH); err != nil && !errors.Is(err, syscall.EINVAL) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", f[4], err))
		}
	}
	return errors.Join(errs...)
}

// cgroupsOf returns the cgroup folders that the processes are in, without the
// one that this process shares.
func cgroupsOf(pids []int) []string {
	own := cgroupFolders("self")
	var all []string
	for _, pid := range pids {
		for _, d := range cgroupFolders(strconv.Itoa(pid)) {
			if !slices.Contains(own, d) && !slices.Contains(all, d) {
				all = append(all, d)
			}
		}
	}
	return all
}

// ownCgroups are the agent's parents of its containers' cgroups, which are
// there also when no container is, below those of containers that had no
// process at the moment.
func (l *Lab) ownCgroups() []string {
	var dirs []string
	for _, pattern := range []string{"/sys/fs/cgroup/%s/*", "/sys/fs/cgroup/*/%s/*", "/sys/fs/cgroup/%s", "/sys/fs/cgroup/*/%s"} {
		found, err := filepath.Glob(fmt.Sprintf(pattern, l.Name))
		if err != nil { // a name with glob characters in it
			panic(err)
		}
		for _, f := range found {
			if isDir(f) {
				dirs = append(dirs, f)
			}
		}
	}
	return dirs
}

// cgroupFolders reads "hierarchy:controllers:path" lines, of version 1 and 2.
func cgroupFolders(pid string) []string {
	b, err := os.ReadFile(filepath.Join("/proc", pid, "cgroup"))
	if err != nil {
		return nil
	}
	var dirs []string
	for _, line := range strings.Split(strings.TrimSpace(string(b)), "\n") {
		f := strings.SplitN(line, ":", 3)
		if len(f) != 3 || f[2] == "/" {
			continue
		}
		controllers := strings.TrimPrefix(f[1], "name=")
		for _, root := range []string{controllers, "unified", ""} {
			if d := filepath.Join("/sys/fs/cgroup", root, f[2]); isDir(d) {
				dirs = append(dirs, d)
				break
			}
		}
	}
	return dirs
}

func isDir(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.IsDir()
}

// removeCgroups removes folders that nothing is in any more, and a parent that
// has become empty with them.
func removeCgroups(ctx context.Context, dirs []string) error {
	var errs []error
	for _, d := range dirs {
		err := Await(ctx, stopLimit, func() error { // the kernel empties it a moment after the kill
			if err := syscall.Rmdir(d); err != nil && !errors.Is(err, syscall.ENOENT) {
				return fmt.Errorf("remove cgroup %s: %w", d, err)
			}
			return nil
		})
		errs = append(errs, err)
		_ = syscall.Rmdir(filepath.Dir(d)) // refused unless empty, and for a mount
	}
	return errors.Join(errs...)
}
