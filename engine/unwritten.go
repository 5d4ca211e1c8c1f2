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
	looked   time.Time
	pids     map[string]int // by replica
	progress map[string]progress
	troubled atomic.Pointer[map[string]troubled] // by replica
}

// troubled is a log writer with which something is wrong.
type troubled struct {
	progress // of one that is stuck or fails
	spec.LogWriter
}

// progress is how far a log writer is.
type progress struct {
	of            int   // the container's process
	pid           int   // the writer
	waits         bool  // something waits to be read
	read, written int64 // bytes, of all files
	since         int64 // what it had read when it was first seen to have written no more than that
}

// mostHeld is how much a log writer has read at most and not written yet: batches of
// 128 KiB, and what comes after them of two streams.
const mostHeld = 256 << 10

// trouble says what is wrong with a writer that isn't stopped, after the look before.
func (p *progress) trouble(before progress) spec.WriterTrouble {
	p.since = p.read
	if before.of != p.of || before.pid != p.pid || before.written != p.written {
		return ""
	}
	p.since = before.since
	switch {
	case p.waits && before.waits && p.read == before.read:
		return spec.WriterStuck
	case p.read-p.since > mostHeld:
		return spec.WriterFails
	}
	return ""
}

// markUnwritten marks the instances whose log isn't written.
func (e *Engine) markUnwritten(all []spec.Instance) {
	w := &e.writers
	if time.Since(w.looked) > writersCheck {
		e.lookAtWriters(all)
	}
	found := *w.troubled.Load()
	for i := range all {
		if t := found[all[i].ID]; t.of == all[i].Pid && all[i].Phase == spec.PhaseRunning {
			all[i].LogWriter = t.LogWriter
		}
	}
}

// lookAtWriters finds out how the writers are. A writer is there before its
// container's process, and lives longer: one that isn't there while the process still
// is has died.
func (e *Engine) lookAtWriters(all []spec.Instance) {
	w := &e.writers
	before, found := w.progress, map[string]troubled{}
	w.looked, w.progress = time.Now(), map[string]progress{}
	lacks := func(i spec.Instance) bool {
		return i.Phase == spec.PhaseRunning && e.writesFor(w.pids[i.ID]) != i.ID
	}
	if slices.ContainsFunc(all, lacks) {
		w.pids = e.findWriters()
	}
	again := false
	for _, i := range all {
		now := progress{of: i.Pid, pid: w.pids[i.ID]}
		switch {
		case i.Phase != spec.PhaseRunning || w.pids == nil:
		case lacks(i):
			if slices.Contains(e.cgroup.pids(i.ID), i.Pid) {
				found[i.ID] = troubled{now, spec.LogWriter{Trouble: spec.WriterGone}}
			}
		case processStopped(now.pid):
			found[i.ID] = troubled{now, spec.LogWriter{Trouble: spec.WriterStopped, Pid: now.pid}}
		case now.count():
			trouble := now.trouble(before[i.ID])
			w.progress[i.ID] = now
			if trouble != "" && !again { // it may be an earlier run's
				w.pids, again = e.findWriters(), true
			}
			if trouble != "" && w.pids[i.ID] == now.pid {
				found[i.ID] = troubled{now, spec.LogWriter{Trouble: trouble, Pid: now.pid}}
			}
		}
	}
	w.troubled.Store(&found)
}

// count asks the kernel what the writer has read and written, and whether something
// waits in its pipes; false where it can't be known. It asks nothing that a process
// which hangs can hold up, as it could how much waits (FIONREAD waits for who writes to
// the pipe), and has hold of a pipe for a moment only: while it had, the program would
// block instead of getting SIGPIPE if its writer died.
func (p *progress) count() bool {
	process, err := unix.PidfdOpen(p.pid, 0)
	if err != nil {
		return false
	}
	defer unix.Close(process)
	for fd := logStdout; fd <= logStderr && !p.waits; fd++ {
		// A stream that has ended may have left its number to a file.
		to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", p.pid, fd))
		p.waits = err == nil && strings.HasPrefix(to, "pipe:") && pipeWaits(process, fd)
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", p.pid))
	if err != nil {
		return false
	}
	_, err = fmt.Sscanf(string(b), "rchar: %d\nwchar: %d", &p.read, &p.written)
	return err == nil
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

// TroubledWriters returns the log writers that are there, by replica, of which
// something is wrong: as of now, but for what Instances alone finds, by looking twice.
func (e *Engine) TroubledWriters() map[string]spec.LogWriter {
	out := map[string]spec.LogWriter{}
	if found := e.writers.troubled.Load(); found != nil {
		for id, then := range *found {
			now := progress{of: then.of, pid: then.Pid}
			if now.pid != 0 && now.count() && now.trouble(then.progress) == then.Trouble {
				out[id] = then.LogWriter
			}
		}
	}
	for id, pid := range e.findWriters() {
		if processStopped(pid) {
			out[id] = spec.LogWriter{Trouble: spec.WriterStopped, Pid: pid}
		}
	}
	return out
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
