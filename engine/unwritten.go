package engine

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// LogWriters returns the paths that the log writers of this agent's containers
// write to, by replica. They are those of the time when the replica was started,
// in the state directory that its agent had. nil = the processes can't be listed.
func (e *Engine) LogWriters() map[string]string {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	paths := map[string]string{}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		args := arguments(pid)
		if len(args) == 0 || filepath.Base(args[0]) != writerName {
			continue
		}
		// The shim says whose it is: replicas of another agent may have the same names.
		if whose := startEnvironment(pid); whose["CONTAINER_NAMESPACE"] == e.cfg.Namespace {
			paths[whose["CONTAINER_ID"]] = argument(args, "path")
		}
	}
	return paths
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
