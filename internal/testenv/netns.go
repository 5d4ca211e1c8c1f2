package testenv

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// hostMarker tells a test that it runs as the "host" already.
const hostMarker = "DUNNAGE_TEST_HOST"

// HostRunDir is a run directory on a tmpfs that only the test's own process
// sees.
const HostRunDir = "/mnt/dunnage"

// Host runs body as if the process were the only one on a machine: the calling
// test (or benchmark, which must be a top-level one) is started again in a
// process of its own, in a fresh network and mount namespace, and body runs
// there. Rules, routes, sysctls and mounts die with that process. It is how
// the agent itself runs, so threads, goroutines and children need no care.
//
// Metrics that a benchmark reports in there are reported here again.
func Host(tb testing.TB, body func()) {
	tb.Helper()
	Root(tb)
	if os.Getenv(hostMarker) == tb.Name() {
		prepareHost(tb)
		body()
		return
	}
	out, err := runAgain(tb)
	if testing.Verbose() || err != nil {
		tb.Logf("in its own namespaces:\n%s", out)
	}
	if err != nil {
		tb.Fatalf("run in its own namespaces: %v", err)
	}
	if b, ok := tb.(*testing.B); ok {
		reportMetrics(b, out)
	}
}

func runAgain(tb testing.TB) (string, error) {
	args := []string{"-test.run=^" + tb.Name() + "$", "-test.count=1"}
	if _, ok := tb.(*testing.B); ok {
		args = []string{"-test.run=^$", "-test.bench=^" + tb.Name() + "$", "-test.benchtime=" + flag.Lookup("test.benchtime").Value.String()}
	}
	if testing.Verbose() {
		args = append(args, "-test.v")
	}
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), hostMarker+"="+tb.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // Pdeathsig means the thread that starts the process
	defer runtime.UnlockOSThread()
	out, err := cmd.CombinedOutput()
	if err == nil && strings.Contains(string(out), "no tests to run") {
		err = fmt.Errorf("no test called %s", tb.Name())
	}
	return string(out), err
}

func prepareHost(tb testing.TB) {
	tb.Helper()
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		tb.Fatalf("make mounts private: %v", err)
	}
	if err := unix.Mount("tmpfs", "/mnt", "tmpfs", 0, ""); err != nil {
		tb.Fatalf("mount run directory: %v", err)
	}
	Run(tb, "ip", "link", "set", "lo", "up")
}

// Run runs a command and returns what it prints; failure ends the test.
func Run(tb testing.TB, name string, args ...string) string {
	tb.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		tb.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

var metric = regexp.MustCompile(`([0-9.]+(?:e[+-][0-9]+)?) (\S+)`)

// reportMetrics repeats the figures of the benchmark's line in out.
func reportMetrics(b *testing.B, out string) {
	for lines := bufio.NewScanner(strings.NewReader(out)); lines.Scan(); {
		if !strings.HasPrefix(lines.Text(), b.Name()) {
			continue
		}
		for _, m := range metric.FindAllStringSubmatch(lines.Text(), -1) {
			if v, err := strconv.ParseFloat(m[1], 64); err == nil && strings.Contains(m[2], "/") {
				b.ReportMetric(v, m[2])
			}
		}
	}
}
