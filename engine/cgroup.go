package engine

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const cgroupRoot = "/sys/fs/cgroup"

// cgroups finds what the kernel knows of a replica: its processes and whether
// the kernel killed one for memory. It works with cgroup v1 and v2.
type cgroups struct {
	procs  string // directory of the parent group whose children list processes
	memory string // likewise, in the hierarchy of the memory controller
	v2     bool
}

func findCgroups(parent string) cgroups {
	if _, err := os.Stat(filepath.Join(cgroupRoot, "cgroup.controllers")); err == nil {
		dir := filepath.Join(cgroupRoot, parent)
		return cgroups{procs: dir, memory: dir, v2: true}
	}
	c := cgroups{memory: filepath.Join(cgroupRoot, "memory", parent)}
	for _, controller := range []string{"pids", "freezer", "devices", "memory"} {
		if _, err := os.Stat(filepath.Join(cgroupRoot, controller)); err == nil {
			c.procs = filepath.Join(cgroupRoot, controller, parent)
			break
		}
	}
	return c
}

// pids lists the live processes of a replica; zombies are not among them. No
// group means no process.
func (c cgroups) pids(id string) []int {
	b, err := os.ReadFile(filepath.Join(c.procs, id, "cgroup.procs"))
	if err != nil {
		return nil
	}
	var pids []int
	for field := range strings.FieldsSeq(string(b)) {
		if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids
}

// oom reports whether the kernel killed a process of the replica for memory
// since its group was made, that is since its last start.
func (c cgroups) oom(id string) bool {
	name := "memory.oom_control" // v1 has the counter "oom_kill N" there
	if c.v2 {
		name = "memory.events"
	}
	b, err := os.ReadFile(filepath.Join(c.memory, id, name))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if n, ok := strings.CutPrefix(strings.TrimSpace(line), "oom_kill "); ok {
			return n != "0"
		}
	}
	return false
}
