package engine

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const cgroupRoot = "/sys/fs/cgroup"

// cgroups finds what the kernel knows of a replica: its processes, and how many of
// them it has killed for memory. It works with cgroup v1 and v2.
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

// oomKills counts the replica's processes that the kernel has killed for memory since
// its group was made, that is since its last start.
func (c cgroups) oomKills(id string) (kills int64) {
	name := "memory.oom_control" // v1 has the counter "oom_kill N" there
	if c.v2 {
		name = "memory.events"
	}
	buf := groupBuffers.Get().(*[8 << 10]byte) // every look asks for each replica
	defer groupBuffers.Put(buf)
	groupReader{buf: buf[:]}.flat(filepath.Join(c.memory, id), name, func(name string, n int64) {
		if name == "oom_kill" {
			kills = n
		}
	})
	return kills
}
