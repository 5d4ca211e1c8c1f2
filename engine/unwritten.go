package engine

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"dunnage/spec"
)

// Unwritten lists those of the running replicas whose log writer is gone.
func (e *Engine) Unwritten(running []spec.ReplicaKey) []spec.ReplicaKey {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	written := map[string]bool{} // by path
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if args := arguments(pid); len(args) > 0 && filepath.Base(args[0]) == writerName {
			written[argument(args, "path")] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(running), func(k spec.ReplicaKey) bool {
		return written[e.cfg.logPath(k)] || !e.Runs(k.ID)
	})
}
