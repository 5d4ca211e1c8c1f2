package testenv

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// Resident is the memory of a process, in KiB.
func Resident(t testing.TB, pid int) int {
	t.Helper()
	kib, err := resident(pid)
	if err != nil {
		t.Fatal(err)
	}
	return kib
}

// PeakMemory watches the memory of a process until the returned function is
// called, which gives the most that it was, in KiB. The kernel's own peak,
// VmHWM, won't do for a few megabytes: it is made of counters that aren't
// added up over the CPUs, and is off by up to 32 pages for each of them and
// each kind of page (percpu_counter), where VmRSS is exact.
func PeakMemory(t testing.TB, pid int) func() int {
	t.Helper()
	Resident(t, pid)
	stop, peak := make(chan struct{}), make(chan int)
	go func() {
		most := 0
		for {
			if kib, err := resident(pid); err == nil { // it may have ended
				most = max(most, kib)
			}
			select {
			case <-stop:
				peak <- most
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	return func() int { close(stop); return <-peak }
}

func resident(pid int) (kib int, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kib); err == nil {
			return kib, nil
		}
	}
	return 0, fmt.Errorf("process %d has no memory", pid)
}
