package engine

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

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
			if id := e.writesFor(pid); id != "" {
				found[id] = pid
			}
		}
	}
	return found
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

// writersCheck is how often Instances looks whether log writers are there. Fifty that
// are take a few milliseconds; where one isn't, all processes of the host are looked at.
const writersCheck = 30 * time.Second

// writers are the log writers as Instances knows them, one look at a time.
type writers struct {
	looked time.Time
	pids   map[string]int // by replica
	gone   map[string]int // replica -> its process that has none
	halted map[string]int // replica -> its writer that is stopped
}

// markUnwritten marks the instances whose log writer is gone or stopped. A writer is there before
// its container's process, and lives longer: one that isn't there while the process
// still is has died.
func (e *Engine) markUnwritten(all []spec.Instance) {
	w := &e.writers
	if time.Since(w.looked) > writersCheck {
		w.looked, w.gone, w.halted = time.Now(), map[string]int{}, map[string]int{}
		lacks := func(i spec.Instance) bool {
			return i.Phase == spec.PhaseRunning && e.writesFor(w.pids[i.ID]) != i.ID
		}
		if slices.ContainsFunc(all, lacks) {
			w.pids = e.findWriters()
		}
		for _, i := range all {
			if w.pids != nil && lacks(i) && slices.Contains(e.cgroup.pids(i.ID), i.Pid) {
				w.gone[i.ID] = i.Pid
			}
			if pid := w.pids[i.ID]; i.Phase == spec.PhaseRunning && w.gone[i.ID] == 0 && processStopped(pid) {
				w.halted[i.ID] = pid
			}
		}
	}
	for i := range all {
		pid, gone := w.gone[all[i].ID]
		all[i].Unwritten = gone && pid == all[i].Pid
		if all[i].Phase == spec.PhaseRunning {
			all[i].StoppedWriter = w.halted[all[i].ID]
		}
	}
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
