package netns

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"dunnage/internal/fault"
)

// sysctl is a kernel setting of the calling thread's network namespace. name
// has slashes ("net/ipv4/ip_forward"), because interface names may have dots.
type sysctl struct{ name, value string }

func (s sysctl) path() string { return filepath.Join("/proc/sys", s.name) }

func (s sysctl) ipv6() bool { return strings.HasPrefix(s.name, "net/ipv6/") }

// dotted is its name as sysctl takes it, also where a link's name has a dot.
func (s sysctl) dotted() string {
	return strings.NewReplacer("/", ".", ".", "/").Replace(s.name)
}

// instead says that the setting isn't what it has to be.
func (s sysctl) instead(now string) string {
	return fmt.Sprintf("setting %s: %s instead of %s", s.dotted(), now, s.value)
}

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
	files map[string]*heldFile // by name
}

type heldFile struct {
	fd    int
	value string // as read last
	lost  bool   // it can't be read any more
}

// read is sysctl.read for the network namespace that the first call was made in.
func (h *held) read(s sysctl) (string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if f := h.files[s.name]; f != nil {
		if err := f.read(); err == nil {
			return f.value, nil
		}
		h.drop(s.name) // of a link that is gone; there may be another of its name
	}
	fd, err := unix.Open(s.path(), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", s.name, err)
	}
	if h.files == nil {
		h.files = map[string]*heldFile{}
	}
	f := &heldFile{fd: fd}
	h.files[s.name] = f
	err = f.read()
	return f.value, err
}

// changed reports whether one of the settings isn't as it was when it was last
// read, here or by read.
func (h *held) changed() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	changed := false
	for _, f := range h.files {
		before, lost := f.value, f.lost
		f.lost = f.read() != nil
		changed = changed || f.value != before || f.lost != lost
	}
	return changed
}

// read asks once: an os.File would ask for the end of the file too, and with
// fifty replicas there are hundreds of these a second.
func (f *heldFile) read() error {
	var b [64]byte
	n, err := preadAll(f.fd, b[:])
	if err != nil {
		return err
	}
	if now := bytes.TrimSpace(b[:n]); string(now) != f.value {
		f.value = string(now)
	}
	return nil
}

// preadAll reads a file of the kernel's that fits into b whole.
func preadAll(fd int, b []byte) (n int, err error) {
	for {
		if n, err = unix.Pread(fd, b, 0); !errors.Is(err, unix.EINTR) {
			return max(n, 0), err
		}
	}
}

// forget closes a setting that won't be asked for again.
func (h *held) forget(s sysctl) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.drop(s.name)
}

func (h *held) drop(name string) {
	if f := h.files[name]; f != nil {
		_ = unix.Close(f.fd) // read only
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
