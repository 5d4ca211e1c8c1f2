package engine

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"dunnage/spec"
)

// LogWriters returns the paths that the log writers of this agent's containers
// write to, by replica. They are those of the time when the replica was started,
// in the state directory that its agent had. nil = the processes can't be listed.
func (e *Engine) LogWriters() map[string]string {
	found := e.findWriters()
	if found == nil {
		return nil
	}
	paths := map[string]string{}
	for id, pid := range found {
		paths[id] = argument(arguments(pid), "path")
	}
	return paths
}

// findWriters returns the processes of the log writers by replica; nil = the
// processes can't be listed.
func (e *Engine) findWriters() map[string]int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	found := map[string]int{}
	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry.Name()); err == nil {
			if id := e.writesFor(pid); id != "" && startedAfter(pid, found[id]) {
				found[id] = pid
			}
		}
	}
	return found
}

// startedAfter reports whether a process is the later of two. One of an earlier run
// that hangs outlives its shim.
func startedAfter(pid, other int) bool {
	if other == 0 {
		return true
	}
	at, _ := processStart(pid) // one that is gone began long ago
	than, _ := processStart(other)
	return at.After(than)
}

// writesFor is the replica that a process writes the log of; empty = it is no log
// writer of this agent's, or dead.
func (e *Engine) writesFor(pid int) string {
	args := arguments(pid)
	if len(args) == 0 || filepath.Base(args[0]) != writerName || argument(args, "path") == "" { // the last: it compresses
		return ""
	}
	// The shim says whose it is: replicas of another agent may have the same names.
	whose := startEnvironment(pid)
	if whose["CONTAINER_NAMESPACE"] != e.cfg.Namespace {
		return ""
	}
	return whose["CONTAINER_ID"]
}

// startEnvironment is that of a process as it began; of one that is gone, none.
func startEnvironment(pid int) map[string]string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	out := map[string]string{}
	for variable := range bytes.SplitSeq(b, []byte{0}) {
		if name, value, found := bytes.Cut(variable, []byte("=")); found {
			out[string(name)] = string(value)
		}
	}
	return out
}

// writersCheck is how often Instances looks how log writers are. Fifty that are there
// take a few milliseconds; where one isn't, all processes of the host are looked at.
const writersCheck = 30 * time.Second

// writers are the log writers as Instances knows them, one look at a time.
type writers struct {
	looked  time.Time
	pids    map[string]int     // by replica
	gone    map[string]int     // replica -> its process that has none
	halted  map[string]int     // replica -> its writer that is stopped
	waiting map[string]waiting // by replica
	stuck   atomic.Pointer[map[string]waiting]
}

// waiting is a log writer in whose pipe something waits to be read. One that is the
// same at two looks in a row is stuck: it has neither read nor written in between.
type waiting struct {
	of   int    // the container's process
	pid  int    // the writer
	done string // how many bytes it has read and written, as the kernel counts them
}

// markUnwritten marks the instances whose log writer is gone, stopped or stuck.
func (e *Engine) markUnwritten(all []spec.Instance) {
	w := &e.writers
	if time.Since(w.looked) > writersCheck {
		e.lookAtWriters(all)
	}
	stuck := w.stuck.Load()
	for i := range all {
		pid, gone := w.gone[all[i].ID]
		all[i].Unwritten = gone && pid == all[i].Pid
		if all[i].Phase == spec.PhaseRunning {
			all[i].StoppedWriter = w.halted[all[i].ID]
			if s := (*stuck)[all[i].ID]; s.of == all[i].Pid {
				all[i].StuckWriter = s.pid
			}
		}
	}
}

// lookAtWriters finds out how the writers are. A writer is there before its
// container's process, and lives longer: one that isn't there while the process still
// is has died.
func (e *Engine) lookAtWriters(all []spec.Instance) {
	w := &e.writers
	before, stuck := w.waiting, map[string]waiting{}
	w.looked, w.gone, w.halted, w.waiting = time.Now(), map[string]int{}, map[string]int{}, map[string]waiting{}
	lacks := func(i spec.Instance) bool {
		return i.Phase == spec.PhaseRunning && e.writesFor(w.pids[i.ID]) != i.ID
	}
	if slices.ContainsFunc(all, lacks) {
		w.pids = e.findWriters()
	}
	again := false
	for _, i := range all {
		pid := w.pids[i.ID]
		switch {
		case i.Phase != spec.PhaseRunning || w.pids == nil:
		case lacks(i):
			if slices.Contains(e.cgroup.pids(i.ID), i.Pid) {
				w.gone[i.ID] = i.Pid
			}
		case processStopped(pid):
			w.halted[i.ID] = pid
		default:
			done, waits := writerWaits(pid)
			if !waits {
				continue
			}
			now := waiting{i.Pid, pid, done}
			w.waiting[i.ID] = now
			if now != before[i.ID] {
				continue
			}
			if !again { // it may be an earlier run's
				w.pids, again = e.findWriters(), true
			}
			if w.pids[i.ID] == pid {
				stuck[i.ID] = now
			}
		}
	}
	w.stuck.Store(&stuck)
}

// writerWaits reports whether something waits to be read in a pipe of a log writer, and
// what that has done; not where it can't be known. It asks nothing that a process which
// hangs can hold up, as it could how much it is (FIONREAD waits for who writes to the
// pipe), and has hold of a pipe for a moment only: while it had, the program would
// block instead of getting SIGPIPE if its writer died.
func writerWaits(pid int) (done string, waits bool) {
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return "", false
	}
	defer unix.Close(process)
	for fd := logStdout; fd <= logStderr; fd++ {
		// A stream that has ended may have left its number to a file.
		if to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd)); err != nil || !strings.HasPrefix(to, "pipe:") {
			continue
		}
		if pipeWaits(process, fd) {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
			done, _, _ = strings.Cut(string(b), "syscr:")
			return done, err == nil
		}
	}
	return "", false
}

// The descriptors that a shim gives a log writer the streams by (containerd,
// core/runtime/v2/README.md, "Logging").
const (
	logStdout = 3
	logStderr = 4
)

// pipeWaits reports whether something waits to be read from a process's pipe.
func pipeWaits(process, fd int) bool {
	end, err := unix.PidfdGetfd(process, fd, 0)
	if err != nil {
		return false
	}
	defer unix.Close(end)
	asked := []unix.PollFd{{Fd: int32(end), Events: unix.POLLIN}}
	n, err := unix.Poll(asked, 0)
	return err == nil && n == 1 && asked[0].Revents&unix.POLLIN != 0
}

// StoppedWriters returns the processes of the log writers that are stopped, by
// replica.
func (e *Engine) StoppedWriters() map[string]int {
	stopped := map[string]int{}
	for id, pid := range e.findWriters() {
		if processStopped(pid) {
			stopped[id] = pid
		}
	}
	return stopped
}

// StuckWriters returns the processes of the log writers that Instances has found
// stuck, and that still are, by replica.
func (e *Engine) StuckWriters() map[string]int {
	stuck := map[string]int{}
	if found := e.writers.stuck.Load(); found != nil {
		for id, then := range *found {
			if done, waits := writerWaits(then.pid); waits && done == then.done && !processStopped(then.pid) {
				stuck[id] = then.pid
			}
		}
	}
	return stuck
}

// processStopped reports whether a process is stopped, by a signal or a debugger;
// one that is gone isn't.
func processStopped(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	// The state comes after the name, which may hold brackets.
	rest := stat[bytes.LastIndexByte(stat, ')')+1:]
	return bytes.HasPrefix(rest, []byte(" T ")) || bytes.HasPrefix(rest, []byte(" t "))
}
