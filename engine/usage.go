package engine

import (
	"bytes"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"dunnage/spec"
)

// Usage reads from the kernel what the replica uses, without its network; false
// where it has no process, or none but runc's. It asks containerd nothing, so that a dashboard works
// where that hangs, and costs some ten small files.
func (e *Engine) Usage(id string) (spec.Usage, bool) {
	u := spec.Usage{Replica: id, At: time.Now()}
	buf := groupBuffers.Get().(*[8 << 10]byte)
	defer groupBuffers.Put(buf)
	r := groupReader{buf: buf[:]}
	// Without a program, or without a group. While runc is on its way to the program
	// the group has yet to get its limits.
	if !slices.ContainsFunc(bytes.Fields(r.read(filepath.Join(e.cgroup.procs, id), "cgroup.procs")), func(pid []byte) bool {
		return !isRuncInit(int(number(pid)))
	}) {
		return u, false
	}
	if e.cgroup.v2 {
		r.unified(filepath.Join(e.cgroup.procs, id), &u)
	} else {
		r.legacy(func(controller string) string { return e.cgroup.dir(controller, id) }, &u)
	}
	return u, true
}

// groupBuffers are kept: fifty replicas are counted every few seconds.
var groupBuffers = sync.Pool{New: func() any { return new([8 << 10]byte) }}

// dir is the replica's group in the hierarchy of a v1 controller.
func (c cgroups) dir(controller, id string) string {
	root, parent := filepath.Dir(filepath.Dir(c.memory)), filepath.Base(c.memory)
	return filepath.Join(root, controller, parent, id)
}

// groupReader reads the files of a group into one buffer. A file that isn't there
// (a controller that is switched off) counts nothing.
type groupReader struct{ buf []byte }

// read returns what fits into the buffer; it holds until the next read. The
// kernel writes these files anew for each reader, in one piece if it asks for one.
func (r groupReader) read(dir, name string) []byte {
	fd, err := unix.Open(filepath.Join(dir, name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	n, err := unix.Read(fd, r.buf)
	if err != nil {
		return nil // the group goes at this moment
	}
	return r.buf[:n]
}

// number is a file's only value; -1 where it has none, such as "max".
func (r groupReader) number(dir, name string) int64 {
	return number(bytes.TrimSpace(r.read(dir, name)))
}

func number(text []byte) int64 {
	n, err := strconv.ParseUint(string(text), 10, 64)
	if err != nil {
		return -1
	}
	return int64(min(n, math.MaxInt64))
}

// flat hands on each line "name value".
func (r groupReader) flat(dir, name string, each func(name string, value int64)) {
	for line := range bytes.Lines(r.read(dir, name)) {
		key, value, _ := bytes.Cut(bytes.TrimSpace(line), []byte(" "))
		if n := number(value); n >= 0 {
			each(string(key), n)
		}
	}
}

// noMemoryLimit is less than what v1 says of a group without a limit (a page
// less than 2^63) and more than any machine has.
const noMemoryLimit = 1 << 62

// limited is a limit as spec.Usage has it.
func limited(n int64) int64 {
	if n < 0 || n >= noMemoryLimit {
		return 0
	}
	return n
}

// legacy reads the groups of cgroup v1, each controller in a tree of its own.
func (r groupReader) legacy(dir func(controller string) string, u *spec.Usage) {
	u.CPU = spec.Duration(max(r.number(dir("cpuacct"), "cpuacct.usage"), 0))
	r.flat(dir("cpu"), "cpu.stat", func(name string, n int64) {
		switch name {
		case "nr_periods":
			u.Periods = n
		case "nr_throttled":
			u.ThrottledPeriods = n
		case "throttled_time":
			u.Throttled = spec.Duration(n)
		}
	})
	if quota := r.number(dir("cpu"), "cpu.cfs_quota_us"); quota > 0 {
		if period := r.number(dir("cpu"), "cpu.cfs_period_us"); period > 0 {
			u.CPULimit = float64(quota) / float64(period)
		}
	}
	u.Memory = max(r.number(dir("memory"), "memory.usage_in_bytes"), 0)
	r.flat(dir("memory"), "memory.stat", func(name string, n int64) {
		switch name {
		case "total_inactive_file":
			u.Memory -= min(n, u.Memory)
		case "hierarchical_memory_limit": // the parents' too
			u.MemoryLimit = limited(n)
		}
	})
	u.Pids = max(r.number(dir("pids"), "pids.current"), 0)
	u.PidsLimit = limited(r.number(dir("pids"), "pids.max"))
	// Those of the throttle count what every scheduler does: "8:0 Read 4096".
	for line := range bytes.Lines(r.read(dir("blkio"), "blkio.throttle.io_service_bytes_recursive")) {
		switch f := bytes.Fields(line); {
		case len(f) != 3:
		case string(f[1]) == "Read":
			u.Read += max(number(f[2]), 0)
		case string(f[1]) == "Write":
			u.Written += max(number(f[2]), 0)
		}
	}
}

// unified reads a group of cgroup v2.
func (r groupReader) unified(dir string, u *spec.Usage) {
	r.flat(dir, "cpu.stat", func(name string, n int64) {
		switch name {
		case "usage_usec":
			u.CPU = spec.Duration(n * int64(time.Microsecond))
		case "nr_periods":
			u.Periods = n
		case "nr_throttled":
			u.ThrottledPeriods = n
		case "throttled_usec":
			u.Throttled = spec.Duration(n * int64(time.Microsecond))
		}
	})
	if f := bytes.Fields(r.read(dir, "cpu.max")); len(f) == 2 { // "max 100000" without a limit
		if quota, period := number(f[0]), number(f[1]); quota > 0 && period > 0 {
			u.CPULimit = float64(quota) / float64(period)
		}
	}
	u.Memory = max(r.number(dir, "memory.current"), 0)
	r.flat(dir, "memory.stat", func(name string, n int64) {
		if name == "inactive_file" {
			u.Memory -= min(n, u.Memory)
		}
	})
	u.MemoryLimit = limited(r.number(dir, "memory.max"))
	u.Pids = max(r.number(dir, "pids.current"), 0)
	u.PidsLimit = limited(r.number(dir, "pids.max"))
	for line := range bytes.Lines(r.read(dir, "io.stat")) { // "8:0 rbytes=4096 wbytes=0 rios=1 ..."
		for _, f := range bytes.Fields(line) {
			if v, ok := bytes.CutPrefix(f, []byte("rbytes=")); ok {
				u.Read += max(number(v), 0)
			} else if v, ok := bytes.CutPrefix(f, []byte("wbytes=")); ok {
				u.Written += max(number(v), 0)
			}
		}
	}
}
