package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"
)

// CPU is the CPU time that the lab's processes have used, with that of their
// ended children: daemons, shims, runtimes, loggers and what runs in containers.
func (l *Lab) CPU() (time.Duration, error) {
	var all time.Duration
	for _, pid := range l.processes() {
		own, children, err := cpuTimes(pid)
		if errors.Is(err, fs.ErrNotExist) {
			continue // ended since: its parent has its time
		}
		if err != nil {
			return 0, err
		}
		all += own + children
	}
	return all, nil
}

// CPUOf is the CPU time of the process that Start started under name alone.
func (l *Lab) CPUOf(name string) (time.Duration, error) {
	own, _, err := cpuTimes(l.Pid(name))
	return own, err
}

// MemoryOf is the resident memory of the process that Start started under name,
// in bytes.
func (l *Lab) MemoryOf(name string) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", l.Pid(name)))
	if err != nil {
		return 0, err
	}
	pages, err := strconv.ParseInt(strings.Fields(string(b))[1], 10, 64)
	return pages * int64(os.Getpagesize()), err
}

// cpuTimes reads fields 14 to 17 of /proc/PID/stat, which are in USER_HZ: 100 on
// every Linux architecture that Go supports.
func cpuTimes(pid int) (own, children time.Duration, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	if len(f) < 15 {
		return 0, 0, fmt.Errorf("read CPU time of process %d: %q", pid, b)
	}
	var ticks [4]int64
	for i := range ticks {
		if ticks[i], err = strconv.ParseInt(f[11+i], 10, 64); err != nil {
			return 0, 0, fmt.Errorf("read CPU time of process %d: %w", pid, err)
		}
	}
	const tick = 10 * time.Millisecond
	return time.Duration(ticks[0]+ticks[1]) * tick, time.Duration(ticks[2]+ticks[3]) * tick, nil
}
