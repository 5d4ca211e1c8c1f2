package world

import (
	"context"
	"time"

	"dunnage/spec"
)

// Usage says that each running container has used a tenth of a core since its
// start.
func (w *World) Usage(id string) (spec.Usage, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.containers[id]
	if c == nil || c.phase != spec.PhaseRunning {
		return spec.Usage{}, false
	}
	spent := w.now.Sub(c.started) / 10
	return spec.Usage{Replica: id, At: w.now, CPU: spec.Duration(spent), Memory: 1 << 20, Pids: 1}, true
}

// LinkBytes counts a kilobyte a second of each link.
func (w *World) LinkBytes() (map[string]spec.LinkBytes, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := map[string]spec.LinkBytes{}
	for id := range w.attached {
		if c := w.containers[id]; c != nil && c.phase == spec.PhaseRunning {
			n := int64(w.now.Sub(c.started) / time.Second)
			out[id] = spec.LinkBytes{Received: n << 10, Sent: n << 11}
		}
	}
	return out, nil
}

// Own counts an agent that does nothing.
func (w *World) Own(context.Context) []spec.OwnStats {
	return []spec.OwnStats{{Name: "agent", Processes: 1}}
}

// HostSize is that of a small machine.
func (w *World) HostSize() (cores int, memory int64) { return 2, 4 << 30 }
