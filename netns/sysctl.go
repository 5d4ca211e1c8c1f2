package netns

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"dunnage/internal/fault"
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
	if err := fault.Do("sysctl write", func() error { return os.WriteFile(s.path(), []byte(s.value), 0o644) }); err != nil {
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

// held are settings that are read at every look, each through a descriptor that
// stays open: opening them takes ten times as long as reading. It is safe for
// concurrent use.
type held struct {
	mu    sync.Mutex
	files map[string]*os.File // by name
}

// read is sysctl.read for the network namespace that the first call was made in.
func (h *held) read(s sysctl) (string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if f := h.files[s.name]; f != nil {
		if v, err := readOpen(f); err == nil {
			return v, nil
		}
		h.drop(s.name) // of a link that is gone; there may be another of its name
	}
	f, err := os.Open(s.path())
	if err != nil {
		return "", fmt.Errorf("read %s: %w", s.name, err)
	}
	if h.files == nil {
		h.files = map[string]*os.File{}
	}
	h.files[s.name] = f
	return readOpen(f)
}

func readOpen(f *os.File) (string, error) {
	var b [64]byte
	n, err := f.ReadAt(b[:], 0)
	if err != nil && err != io.EOF {
		return "", err
	}
	return strings.TrimSpace(string(b[:n])), nil
}

// forget closes a setting that won't be asked for again.
func (h *held) forget(s sysctl) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.drop(s.name)
}

func (h *held) drop(name string) {
	if f := h.files[name]; f != nil {
		_ = f.Close() // read only
		delete(h.files, name)
	}
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
