package orchestrator

import (
	"errors"
	"strings"
	"testing"

	"dunnage/spec"
)

// TestPrivilege: what owns the host is refused with service and flag, unless
// the agent allows it.
func TestPrivilege(t *testing.T) {
	for word, change := range map[string]func(*spec.Container){
		"privileged: true": func(c *spec.Container) { c.Privileged = true },
		"pid: host":        func(c *spec.Container) { c.HostPID = true },
		"ipc: host":        func(c *spec.Container) { c.HostIPC = true },
	} {
		p := one("p", "fast")
		change(&p.Services[0].Container)
		l := &Loop{}
		err := l.checkSources(t.Context(), p)
		if !errors.Is(err, spec.ErrRefused) || !strings.Contains(err.Error(), "service "+p.Services[0].Name) || !strings.Contains(err.Error(), word) || !strings.Contains(err.Error(), "--allow-privileged") {
			t.Errorf("%s: %v", word, err)
		}
		l.cfg.AllowPrivileged = true
		if err := l.checkSources(t.Context(), p); err != nil {
			t.Errorf("%s, allowed: %v", word, err)
		}
	}
}
