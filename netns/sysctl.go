package netns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// sysctl is a kernel setting of the calling thread's network namespace. name
// has slashes ("net/ipv4/ip_forward"), because interface names may have dots.
type sysctl struct{ name, value string }

func (s sysctl) path() string { return filepath.Join("/proc/sys", s.name) }

func (s sysctl) ipv6() bool { return strings.HasPrefix(s.name, "net/ipv6/") }

// set writes only what differs: reading is cheaper, and writing some settings
// (forwarding) resets others.
func (s sysctl) set() error {
	if now, err := s.read(); err == nil && now == s.value {
		return nil
	}
	if err := os.WriteFile(s.path(), []byte(s.value), 0o644); err != nil {
		return fmt.Errorf("set %s to %s: %w", s.name, s.value, err)
	}
	return nil
}

func (s sysctl) read() (string, error) {
	b, err := os.ReadFile(s.path())
	if err != nil {
		return "", fmt.Errorf("read %s: %w", s.name, err)
	}
	return strings.Join(strings.Fields(string(b)), " "), nil
}

func boolSysctl(on bool) string {
	if on {
		return "1"
	}
	return "0"
}

// setAll sets each in order. A kernel or an interface without IPv6 has no IPv6
// settings: nothing to do there.
func setAll(all []sysctl) error {
	for _, s := range all {
		if err := s.set(); err != nil && !(s.ipv6() && errors.Is(err, os.ErrNotExist)) {
			return err
		}
	}
	return nil
}
