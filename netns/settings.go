package netns

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

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
		return fmt.Errorf("add to the host's former settings: %w: {} written to %s goes on without them", err, n.settingsFile())
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
	if err := replaceFile(n.settingsFile(), b); err != nil {
		return err
	}
	n.changed.Store(len(former) > 0)
	return nil
}

// formerSettings is empty where the file isn't there.
func (n *Network) formerSettings() (map[string]string, error) {
	former := map[string]string{}
	b, err := regular.ReadFile(n.settingsFile())
	if errors.Is(err, os.ErrNotExist) {
		return former, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &former); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", n.settingsFile(), err)
	}
	return former, nil
}

// lostSettings lists the settings that nobody can put back any more, and says why:
// what they were is damaged or gone.
func (n *Network) lostSettings() (stay []string, why error) {
	former, err := n.formerSettings()
	if err == nil && len(former) > 0 {
		n.changed.Store(true)
		return nil, nil
	}
	if err == nil {
		_, gone := os.Lstat(n.settingsFile())
		if !n.changed.Load() || !errors.Is(gone, os.ErrNotExist) {
			return nil, nil
		}
		err = fmt.Errorf("%s is gone", n.settingsFile())
	}
	return n.settingsOfOurs(), err
}

// settingsOfOurs lists what dunnage sets on a host and is so now ("net.ipv4.ip_forward=1").
func (n *Network) settingsOfOurs() (all []string) {
	var ours []sysctl
	for _, pool := range n.pools() {
		ours = append(ours, forwarding(pool))
		if pool.Addr().Is6() {
			links, _ := filepath.Glob("/proc/sys/net/ipv6/conf/*/accept_ra") // the pattern is fixed and valid
			for _, path := range links {
				ours = append(ours, sysctl{strings.TrimPrefix(path, "/proc/sys/"), "2"})
			}
		}
	}
	for _, s := range ours {
		if now, err := s.read(); err == nil && now == s.value {
			all = append(all, s.dotted()+"="+now)
		}
	}
	return all
}

// RestoreSettings puts back the host's settings that dunnage changed, and lists
// them ("net.ipv4.ip_forward=0"). Its error names those that stay changed because
// what they were isn't known any more. It comes after Remove.
func (n *Network) RestoreSettings() (restored []string, err error) {
	if stay, why := n.lostSettings(); len(stay) > 0 {
		return nil, fmt.Errorf("these settings stay as they are, since nobody knows what they were before dunnage (%w): %s: set by hand what shall be otherwise", why, strings.Join(stay, ", "))
	}
	return n.restoreSettings()
}

// restoreSettings puts back what rememberSettings wrote down, in any order:
// none of these settings changes another one's value.
func (n *Network) restoreSettings() (restored []string, err error) {
	former, err := n.formerSettings()
	if err != nil {
		return nil, err
	}
	var all []error
	for _, name := range slices.Sorted(maps.Keys(former)) {
		s := sysctl{name, former[name]}
		err := s.set()
		if err == nil {
			restored = append(restored, s.dotted()+"="+s.value)
		} else if !errors.Is(err, os.ErrNotExist) { // else the interface is gone
			all = append(all, err)
		}
	}
	if err := errors.Join(all...); err != nil {
		return restored, err
	}
	if err := fault.Do("settings file remove", func() error { return os.Remove(n.settingsFile()) }); err != nil && !errors.Is(err, os.ErrNotExist) {
		return restored, fmt.Errorf("forget former settings: %w", err)
	}
	n.changed.Store(false)
	return restored, nil
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
