package engine

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"dunnage/spec"
)

// oldLogs is how many removed replicas of a service keep their log: enough to
// read why the last ones failed, bounded so that the disk doesn't only fill.
const oldLogs = 5

// pruneLogs deletes the logs of all but the newest removed replicas of a
// service. What can't be deleted now is tried at the next removal.
func (e *Engine) pruneLogs(k spec.ReplicaKey) {
	dir := filepath.Dir(e.cfg.logPath(k))
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	newest := make(map[string]time.Time) // replica -> last write
	for _, entry := range entries {
		id, _, ok := strings.Cut(entry.Name(), ".log")
		info, err := entry.Info()
		if !ok || err != nil {
			continue
		}
		if _, running := e.started.get(id); running && id != k.ID {
			continue
		}
		if at := info.ModTime(); at.After(newest[id]) {
			newest[id] = at
		}
	}
	ids := make([]string, 0, len(newest))
	for id := range newest {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b string) int { return newest[b].Compare(newest[a]) })
	for _, id := range ids[min(oldLogs, len(ids)):] {
		e.removeLog(dir, id)
	}
}

func (e *Engine) removeLog(dir, id string) {
	files, err := filepath.Glob(filepath.Join(dir, id+".log*"))
	if err != nil {
		return
	}
	for _, f := range files {
		_ = os.Remove(f) // the next removal tries again
	}
}
