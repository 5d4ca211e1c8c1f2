package world

import (
	"time"

	"dunnage/spec"
)

// Held lists the services, as "project/name", whose connections the rules let
// wait.
func (w *World) Held() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for _, s := range w.kernel.Services {
		if s.Absent == spec.Hold && len(s.Backends) == 0 {
			out = append(out, s.Project+"/"+s.Service)
		}
	}
	return out
}

// drain is how long connections to the replica may finish: at most a quarter of
// the hold while those that come wait for what takes its place.
func (w *World) drain(c *container, drain time.Duration) time.Duration {
	release, _ := w.desired(c.key.Project)
	s, ok := release.Project.Service(c.key.Service)
	if !ok || s.Hold == 0 || s.Update.Order != spec.StopFirst {
		return drain
	}
	for _, r := range w.kernel.Services {
		if r.Project == c.key.Project && r.Service == c.key.Service && len(r.Backends) > 0 {
			return drain
		}
	}
	return min(drain, s.Hold.Std()/4)
}
