package netns

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"dunnage/internal/fault"
	"dunnage/internal/regular"
)

// forwarding is the setting without which the host doesn't route the family.
func forwarding(pool netip.Prefix) sysctl {
	if pool.Addr().Is6() {
		return sysctl{"net/ipv6/conf/all/forwarding", "1"}
	}
	return sysctl{"net/ipv4/ip_forward", "1"}
}

// ensureForwarding turns routing on. What stood there before is written down
// first, for Remove.
func (n *Network) ensureForwarding(pool netip.Prefix) error {
	s := forwarding(pool)
	now, err := s.read()
	if err != nil || now == s.value {
		return err
	}
	change := []sysctl{s}
	if s.ipv6() {
		change = append(acceptRA(), s)
	}
	if err := n.rememberSettings(change); err != nil {
		return err
	}
	return setAll(change)
}

// acceptRA keeps router advertisements working where they are in use: a
// forwarding host ignores them unless accept_ra is 2, and would lose its IPv6
// default route when the last one expires.
func acceptRA() []sysctl {
	var all []sysctl
	links, _ := filepath.Glob("/proc/sys/net/ipv6/conf/*/accept_ra") // the pattern is fixed and valid
	for _, path := range links {
		name, err := filepath.Rel("/proc/sys", path)
		if err != nil {
			continue
		}
		s := sysctl{name, "2"}
		link := filepath.Base(filepath.Dir(path))
		if now, err := s.read(); err == nil && now == "1" && link != "all" && link != "lo" {
			all = append(all, s)
		}
	}
	return all
}

// settingsFile records the values that dunnage changed, as they were before.
func (n *Network) settingsFile() string { return filepath.Join(n.cfg.RunDir, "settings.json") }

func (n *Network) rememberSettings(change []sysctl) error {
	former, err := n.formerSettings()
	if err != nil {
		return err
	}
	for _, s := range change {
		if _, known := former[s.name]; known {
			continue
		}
		if former[s.name], err = s.read(); err != nil {
			return err
		}
	}
	b, err := json.Marshal(former)
	if err != nil {
		return fmt.Errorf("encode former settings: %w", err)
	}
	if err := os.MkdirAll(n.cfg.RunDir, 0o755); err != nil {
		return fmt.Errorf("make run directory: %w", err)
	}
	return replaceFile(n.settingsFile(), b)
}

func (n *Network) formerSettings() (map[string]string, error) {
	former := map[string]string{}
	b, err := regular.ReadFile(n.settingsFile())
	if errors.Is(err, os.ErrNotExist) {
		return former, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read former settings: %w", err)
	}
	if err := json.Unmarshal(b, &former); err != nil {
		return nil, fmt.Errorf("read former settings from %s: %w: delete the file to go on without them", n.settingsFile(), err)
	}
	return former, nil
}

// restoreSettings puts back what rememberSettings wrote down, in any order:
// none of these settings changes another one's value.
func (n *Network) restoreSettings() error {
	former, err := n.formerSettings()
	if err != nil {
		return err
	}
	var all []error
	for name, value := range former {
		err := (sysctl{name, value}).set()
		if !errors.Is(err, os.ErrNotExist) { // the interface is gone
			all = append(all, err)
		}
	}
	if err := errors.Join(all...); err != nil {
		return err
	}
	if err := fault.Do("settings file remove", func() error { return os.Remove(n.settingsFile()) }); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("forget former settings: %w", err)
	}
	return nil
}

// replaceFile swaps the file in one step: a crash leaves the old or the new.
// The run directory is gone after a reboot, so nothing is synced.
func replaceFile(path string, content []byte) error {
	next := path + ".new"
	if err := fault.Do("run file write", func() error { return regular.WriteFile(next, content, 0o644) }); err != nil {
		return fmt.Errorf("write %s: %w", next, err)
	}
	if err := fault.Do("run file rename", func() error { return os.Rename(next, path) }); err != nil {
		return fmt.Errorf("replace %s: %w", path, err)
	}
	return nil
}
