package netns

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"dunnage/internal/fault"
	"dunnage/internal/regular"
	"dunnage/netns/rules"
	"dunnage/spec"
)

// leftNote says in the run directory what the last Apply left, for the agent
// that comes after: what differs from it then is others' doing. It is taken away
// before the first change to something else and written after the last one, so
// that an Apply which was cut short leaves none.
type leftNote struct {
	Host    string       `json:"host"` // hostNow when it was written
	Rules   string       `json:"rules"`
	Pool    netip.Prefix `json:"pool"`
	Pool6   netip.Prefix `json:"pool6,omitzero"`
	Backend Backend      `json:"backend"`
	Routing spec.Routing `json:"routing"`
	Changed bool         `json:"changed,omitzero"` // settings of the host's, which settings.json keeps
}

func leftFile(runDir string) string { return filepath.Join(runDir, "rules.json") }

// hostNow tells this network namespace of this boot from any other.
func hostNow() (string, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read the id of the boot: %w", err)
	}
	ns, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		return "", fmt.Errorf("find the network namespace: %w", err)
	}
	return fmt.Sprintf("%.36s %s", boot, ns), nil
}

// readLeft returns the note in the run directory, if it is of this host as it
// runs now; the error says why there is none.
func readLeft(runDir string) (note leftNote, err error) {
	b, err := regular.ReadFile(leftFile(runDir))
	if errors.Is(err, fs.ErrNotExist) {
		return note, fmt.Errorf("no agent has left a note of them in %s", runDir)
	}
	if err == nil {
		err = json.Unmarshal(b, &note)
	}
	if err != nil {
		return note, fmt.Errorf("read the agent's note of them: %w", err)
	}
	host, err := hostNow()
	if err == nil && host != note.Host {
		err = errors.New("the agent ran in another network namespace than this program, or before the last boot")
	}
	return note, err
}

// LeftDamage names how the kernel differs from what the agent with this run
// directory left of rules, routes and links, while that agent doesn't say so
// itself. It changes nothing. The error says why nobody knows.
func LeftDamage(ctx context.Context, runDir string) ([]spec.Damage, error) {
	note, err := readLeft(runDir)
	if err != nil {
		return nil, err
	}
	n, err := New(Config{RunDir: runDir, Pool: note.Pool, Pool6: note.Pool6, Iptables: note.Backend})
	if err != nil {
		return nil, err
	}
	r, same := n.Left()
	if !same {
		return nil, errors.New("the agent is of another version than this program")
	}
	var replicas []string
	for _, s := range r.Services {
		for _, b := range s.Backends {
			if !slices.Contains(replicas, b.Replica) { // which may be in several networks
				replicas = append(replicas, b.Replica)
			}
		}
	}
	return n.Damaged(ctx, r, replicas)
}

// Left returns what the last Apply of the agent before this one left, and whether
// this one would leave the same for it: then all that differs is others' doing.
// It returns zero and false where nobody knows: after a reboot, in another network
// namespace, with another pool, and where that Apply was cut short.
func (n *Network) Left() (r spec.Routing, same bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	note, err := readLeft(n.cfg.RunDir)
	if err != nil {
		return spec.Routing{}, false
	}
	if note.Changed {
		n.changed.Store(true)
	}
	v4, v6, err := rules.Render(note.Routing, n.rules())
	switch {
	case err != nil: // of another pool: nothing here can be compared with it
		return spec.Routing{}, false
	case note.Rules != n.sum(v4, v6):
		return note.Routing, false
	}
	n.left = &note.Routing
	return note.Routing, true
}

// sum tells rules from others, and from the same ones in the other backend.
func (n *Network) sum(v4, v6 rules.Document) string {
	return fmt.Sprintf("%s %x", n.tables.backend, sha256.Sum256([]byte(ruleText(v4, v6))))
}

// forgetLeft takes the note away before something else is made of the rules. Called
// with mu held. Where it can't be taken away, the next agent may tell of damage
// that is none, which is no reason not to change rules.
func (n *Network) forgetLeft(r spec.Routing) {
	if n.left != nil && r.Equal(*n.left) {
		return
	}
	n.left = nil
	path := leftFile(n.cfg.RunDir)
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return
	}
	_ = fault.Do("rules note remove", func() error { return os.Remove(path) })
}

// noteLeft writes the note. Called with mu held. What fails here costs the next
// agent no more than the names of damage. While IPv6 can't be set up there is
// none: the next agent doesn't know of that until it has tried.
func (n *Network) noteLeft(r spec.Routing, v4, v6 rules.Document) {
	if n.left != nil && r.Equal(*n.left) || n.ipv6.last(time.Now()) != nil {
		return
	}
	host, err := hostNow()
	if err != nil {
		return
	}
	b, err := json.Marshal(leftNote{Host: host, Rules: n.sum(v4, v6), Pool: n.cfg.Pool, Pool6: n.cfg.Pool6, Backend: n.tables.backend, Routing: r, Changed: n.changed.Load()})
	if err == nil {
		err = os.MkdirAll(n.cfg.RunDir, 0o755)
	}
	if err == nil && replaceFile(leftFile(n.cfg.RunDir), b) == nil {
		n.left = &r
	}
}
