package engine

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"dunnage/spec"
)

const throttledBytes = "blkio.throttle.io_service_bytes_recursive"

// group writes a group's files below dir. Names are relative to it.
func group(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestUsageOfGroups: the same use, as both versions of the kernel's interface
// write it. The texts are those of Debian 12 (6.1) and of a 6.18.
func TestUsageOfGroups(t *testing.T) {
	limitedUse := spec.Usage{
		Replica: "r", CPU: spec.Duration(1500 * time.Millisecond), CPULimit: 0.5,
		Periods: 400, ThrottledPeriods: 100, Throttled: spec.Duration(2 * time.Second),
		Memory: 90 << 20, MemoryLimit: 128 << 20, Pids: 3, PidsLimit: 100,
		Read: 4096 + 512, Written: 8192,
	}
	free := spec.Usage{Replica: "r", CPU: spec.Duration(5 * time.Microsecond), Memory: 4096, Pids: 1}
	for name, tc := range map[string]struct {
		v2    bool
		files map[string]string
		want  spec.Usage
	}{
		"v1": {false, map[string]string{
			"pids/dunnage/r/cgroup.procs": "17\n18\n", "pids/dunnage/r/pids.current": "3\n", "pids/dunnage/r/pids.max": "100\n",
			"cpuacct/dunnage/r/cpuacct.usage":        "1500000000\n",
			"cpu/dunnage/r/cpu.stat":                 "nr_periods 400\nnr_throttled 100\nthrottled_time 2000000000\nnr_bursts 0\nburst_time 0\n",
			"cpu/dunnage/r/cpu.cfs_quota_us":         "5000\n",
			"cpu/dunnage/r/cpu.cfs_period_us":        "10000\n",
			"memory/dunnage/r/memory.usage_in_bytes": "104857600\n",
			"memory/dunnage/r/memory.stat":           "cache 5\ninactive_file 1\nhierarchical_memory_limit 134217728\nhierarchical_memsw_limit 9223372036854771712\ntotal_inactive_file 10485760\n",
			"blkio/dunnage/r/" + throttledBytes:      "8:0 Read 4096\n8:0 Write 8192\n8:0 Sync 12288\n8:0 Async 0\n8:0 Discard 0\n8:0 Total 12288\n254:1 Read 512\n254:1 Write 0\n254:1 Total 512\nTotal 12800\n",
		}, limitedUse},
		"v2": {true, map[string]string{
			"dunnage/r/cgroup.procs": "17\n18\n", "dunnage/r/pids.current": "3\n", "dunnage/r/pids.max": "100\n",
			"dunnage/r/cpu.stat":       "usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000\nnice_usec 0\ncore_sched.force_idle_usec 0\nnr_periods 400\nnr_throttled 100\nthrottled_usec 2000000\nnr_bursts 0\nburst_usec 0\n",
			"dunnage/r/cpu.max":        "5000 10000\n",
			"dunnage/r/memory.current": "104857600\n",
			"dunnage/r/memory.max":     "134217728\n",
			"dunnage/r/memory.stat":    "anon 94371840\nfile 10485760\ninactive_anon 0\nactive_anon 94371840\ninactive_file 10485760\nactive_file 0\n",
			"dunnage/r/io.stat":        "8:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n254:1 rbytes=512 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n",
		}, limitedUse},
		"v1 without limits and block devices": {false, map[string]string{
			"pids/dunnage/r/cgroup.procs": "17\n", "pids/dunnage/r/pids.current": "1\n", "pids/dunnage/r/pids.max": "max\n",
			"cpuacct/dunnage/r/cpuacct.usage":        "5000\n",
			"cpu/dunnage/r/cpu.stat":                 "nr_periods 0\nnr_throttled 0\nthrottled_time 0\n",
			"cpu/dunnage/r/cpu.cfs_quota_us":         "-1\n",
			"cpu/dunnage/r/cpu.cfs_period_us":        "100000\n",
			"memory/dunnage/r/memory.usage_in_bytes": "4096\n",
			"memory/dunnage/r/memory.stat":           "hierarchical_memory_limit 9223372036854771712\ntotal_inactive_file 0\n",
			"blkio/dunnage/r/" + throttledBytes:      "Total 0\n",
		}, free},
		"v2 without limits and controllers": {true, map[string]string{
			"dunnage/r/cgroup.procs": "17\n", "dunnage/r/pids.current": "1\n", "dunnage/r/pids.max": "max\n",
			"dunnage/r/cpu.stat": "usage_usec 5\nuser_usec 5\nsystem_usec 0\n", "dunnage/r/cpu.max": "max 100000\n",
			"dunnage/r/memory.current": "4096\n", "dunnage/r/memory.max": "max\n", "dunnage/r/memory.stat": "anon 4096\ninactive_file 0\n",
		}, free},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			group(t, root, tc.files)
			c := cgroups{procs: filepath.Join(root, "pids/dunnage"), memory: filepath.Join(root, "memory/dunnage")}
			if tc.v2 {
				c = cgroups{procs: filepath.Join(root, "dunnage"), memory: filepath.Join(root, "dunnage"), v2: true}
			}
			e := &Engine{cgroup: c}
			got, runs := e.Usage("r")
			if time.Since(got.At) > time.Minute {
				t.Errorf("at %s", got.At)
			}
			got.At = time.Time{}
			if diff := cmp.Diff(tc.want, got); diff != "" || !runs {
				t.Errorf("runs: %v, other than wanted:\n%s", runs, diff)
			}
			if u, runs := e.Usage("other"); runs {
				t.Errorf("a replica without a group uses %+v", u)
			}
			procs := filepath.Join(c.procs, "r", "cgroup.procs")
			if err := os.WriteFile(procs, nil, 0o644); err != nil {
				t.Fatal(err)
			}
			if u, runs := e.Usage("r"); runs {
				t.Errorf("a replica without a process uses %+v", u)
			}
		})
	}
}

// TestUsageOfAStart: of a replica that is being started nothing is shown: its group
// has no limits yet, and what runs in it is runc.
func TestUsageOfAStart(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mkfifo(filepath.Join(dir, "init"), 0o600); err != nil { // what waits for its writer stays
		t.Fatal(err)
	}
	cmd := exec.Cmd{Path: "/bin/cat", Args: []string{"runc", "init"}, Dir: dir}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = cmd.Process.Kill(), cmd.Wait() })
	for end := time.Now().Add(10 * time.Second); !isRuncInit(cmd.Process.Pid) && time.Now().Before(end); { // its arguments come after Start has returned
		time.Sleep(time.Millisecond)
	}
	root := filepath.Join(dir, "dunnage")
	procs := filepath.Join(root, "r", "cgroup.procs")
	if err := os.MkdirAll(filepath.Dir(procs), 0o755); err != nil {
		t.Fatal(err)
	}
	e := &Engine{cgroup: cgroups{procs: root, memory: root, v2: true}}
	for text, want := range map[string]bool{
		fmt.Sprintf("%d\n", cmd.Process.Pid):                  false,
		fmt.Sprintf("%d\n%d\n", cmd.Process.Pid, os.Getpid()): true, // an exec beside the program
	} {
		if err := os.WriteFile(procs, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if u, runs := e.Usage("r"); runs != want {
			t.Errorf("with processes %q: runs %t, %+v", text, runs, u)
		}
	}
}

// TestUsage: what a real replica uses shows, and more of it as it goes on;
// nothing shows of one that has ended.
func TestUsage(t *testing.T) {
	b := newBench(t)
	image := b.app()
	large := request(image, 1, "alloc", "64")
	large.Limits = spec.Limits{Memory: 256 << 20, CPUs: 1.5, Pids: 50}
	b.run(large)
	b.awaitReady(large)
	u, runs := b.Usage(large.ID)
	if !runs || u.Memory < 64<<20 || u.Memory > 128<<20 || u.MemoryLimit != 256<<20 || u.CPU <= 0 || u.CPULimit != 1.5 || u.Pids < 1 || u.PidsLimit != 50 {
		t.Errorf("64 MiB in use, runs: %v, %+v", runs, u)
	}
	busy := request(image, 2, "burn", "2")
	busy.Limits = spec.Limits{CPUs: 0.1}
	b.run(busy)
	before, _ := b.Usage(busy.ID)
	deadline := time.Now().Add(20 * time.Second)
	for now := before; now.CPU < before.CPU+spec.Duration(50*time.Millisecond) || now.ThrottledPeriods == 0 || now.Throttled == 0; now, _ = b.Usage(busy.ID) {
		if time.Now().After(deadline) {
			t.Fatalf("a busy replica with a tenth of a core, at first %+v, now %+v", before, now)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err := b.Signal(b.ctx, busy.ID, "SIGKILL"); err != nil {
		t.Fatal(err)
	}
	b.awaitPhase(busy.ID, spec.PhaseExited)
	if u, runs := b.Usage(busy.ID); runs {
		t.Errorf("after its end: %+v", u)
	}
}

// TestMemoryWithoutCache: a file that was read once isn't in use, as `docker
// stats` reckons it.
func TestMemoryWithoutCache(t *testing.T) {
	b := newBench(t)
	const size = 32 << 20
	path := b.file("large", strings.Repeat("x", size))
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// The cache belongs to the group that reads the file first.
	if err := errors.Join(f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)); err != nil {
		t.Fatal(err)
	}
	r := request(b.app(), 1, "serve", "8080")
	r.Container.Mounts = []spec.Mount{{Type: spec.MountBind, Source: path, Target: "/large"}}
	b.run(r)
	b.awaitReady(r)
	if code, out, errs := b.exec(r.ID, "", "/testapp", "cat", "/large"); code != 0 || len(out) != size {
		t.Fatalf("%d bytes read: %s", len(out), errs)
	}
	if all := b.usage("memory", r.ID, "memory.usage_in_bytes", "memory.current"); all < size {
		t.Fatalf("the group has %d bytes after reading %d: nothing is shown here", all, size)
	}
	if u, _ := b.Usage(r.ID); u.Memory == 0 || u.Memory > size/2 {
		t.Errorf("%d bytes in use after reading %d", u.Memory, size)
	}
}
