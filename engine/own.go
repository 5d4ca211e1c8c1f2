package engine

import (
	"bytes"
	"context"
	"os"
	"runtime"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"dunnage/spec"
)

// Names of programs as the kernel has them, cut to 15 bytes.
const (
	shimName   = "containerd-shim"
	writerName = "dunnage-log"
)

// Own counts what dunnage itself takes on this host: the agent, containerd, and
// the shims and log writers of this engine's containers. It reads /proc, so that
// none of them is asked.
func (e *Engine) Own(ctx context.Context) []spec.OwnStats {
	groups := []spec.OwnStats{{Name: "agent"}, {Name: "containerd"}, {Name: "shims"}, {Name: "log writers"}}
	daemon, err := listener(ctx, e.cfg.Address)
	if err != nil { // it is down: what it takes isn't shown
		daemon = -1
	}
	r := groupReader{buf: make([]byte, 8<<10)}
	shims := map[int]bool{}
	writers := []process{}
	count := func(group int, p process) {
		g := &groups[group]
		g.Processes++
		g.CPU += spec.Duration(p.cpu)
		g.Memory += r.private(p.pid)
	}
	for _, p := range r.processes(&e.strangers) {
		switch {
		case p.pid == os.Getpid():
			count(0, p)
		case p.pid == daemon:
			count(1, p)
		case p.name == shimName && r.serves(p.pid, e.cfg.Namespace):
			shims[p.pid] = true
			count(2, p)
		case p.name == writerName:
			writers = append(writers, p)
		default:
			e.strangers.add(p.pid)
		}
	}
	for _, p := range writers {
		if shims[p.parent] {
			count(3, p)
		} else {
			e.strangers.add(p.pid)
		}
	}
	return groups
}

// HostSize is what this machine has.
func (e *Engine) HostSize() (cores int, memory int64) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return runtime.NumCPU(), 0
	}
	return runtime.NumCPU(), int64(info.Totalram) * int64(info.Unit)
}

// process is one line of /proc/PID/stat.
type process struct {
	pid, parent int
	name        string
	cpu         time.Duration
}

// strangers are processes that were none of ours when they were looked at: a host
// has hundreds. A number that the kernel has given to another process since
// stays one of them until all are looked at again.
type strangers struct {
	mu    sync.Mutex
	since time.Time
	pids  map[int]bool
}

// strangersFor is how long a process of ours may be missing from the count for
// having a stranger's number.
const strangersFor = time.Minute

func (s *strangers) add(pid int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pids[pid] = true
}

func (s *strangers) has(pid int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); now.Sub(s.since) > strangersFor {
		s.since, s.pids = now, map[int]bool{}
	}
	return s.pids[pid]
}

// processes are all but those that are known to be strangers.
func (r groupReader) processes(s *strangers) []process {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil
	}
	var all []process
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil && !s.has(pid) {
			if p, ok := parseStat(pid, r.read("/proc", name+"/stat")); ok {
				all = append(all, p)
			}
		}
	}
	return all
}

// tick is the unit of the kernel's CPU times: USER_HZ is 100 on every Linux
// architecture that Go supports.
const tick = 10 * time.Millisecond

// parseStat reads "PID (NAME) STATE PPID ... UTIME STIME": a name may hold
// spaces and brackets.
func parseStat(pid int, line []byte) (process, bool) {
	open, end := bytes.IndexByte(line, '('), bytes.LastIndexByte(line, ')')
	if open < 0 || end < open {
		return process{}, false
	}
	f := bytes.Fields(line[end+1:])
	if len(f) < 13 {
		return process{}, false
	}
	return process{
		pid: pid, parent: int(number(f[1])), name: string(line[open+1 : end]),
		cpu: time.Duration(number(f[11])+number(f[12])) * tick,
	}, true
}

// private is the memory in bytes that a process has for itself: files, above all
// its program, it shares with others that run the same.
func (r groupReader) private(pid int) int64 {
	f := bytes.Fields(r.read("/proc", strconv.Itoa(pid)+"/statm")) // in pages: size, resident, shared
	if len(f) < 3 {
		return 0
	}
	return max(number(f[1])-number(f[2]), 0) * int64(os.Getpagesize())
}

// serves reports whether a shim's command line names the namespace.
func (r groupReader) serves(pid int, namespace string) bool {
	args := bytes.Split(r.read("/proc", strconv.Itoa(pid)+"/cmdline"), []byte{0})
	for i, a := range args[:max(len(args)-1, 0)] {
		if string(a) == "-namespace" && string(args[i+1]) == namespace {
			return true
		}
	}
	return false
}
