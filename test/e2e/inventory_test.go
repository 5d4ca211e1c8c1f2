package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"dunnage/spec"
	"dunnage/store"
	"dunnage/test/lab"
)

// inventory is what an agent has on its host, by kind of resource. Two of them
// are compared by number: names, addresses and pids differ from run to run.
type inventory map[string][]string

// kinds of resource that an inventory counts.
var kinds = map[string]func(h *host) ([]string, error){
	"containers":                       func(h *host) ([]string, error) { return h.ctrList("containers", "ls", "-q") },
	"tasks":                            func(h *host) ([]string, error) { return h.ctrList("tasks", "ls") },
	"snapshots":                        func(h *host) ([]string, error) { return h.ctrList("snapshots", "ls") },
	"images":                           func(h *host) ([]string, error) { return h.ctrList("images", "ls", "-q") },
	"leases of no release":             (*host).strayLeases,
	"downloads that were cut short":    (*host).ingests,
	"network namespaces":               func(h *host) ([]string, error) { return entries(h.lab.Path("run/netns")) },
	"links":                            (*host).links,
	"routes":                           (*host).routes,
	"neighbours":                       (*host).neighbours,
	"rules":                            (*host).ourRules,
	"conntrack entries to nobody":      (*host).deadFlows,
	"mounts":                           (*host).mounts,
	"cgroups":                          (*host).cgroups,
	"processes":                        (*host).procs,
	"files of the run directory":       (*host).runFiles,
	"files of the state directory":     (*host).stateFiles,
	"records of replicas in the store": (*host).records,
}

// take lists everything.
func (h *host) take() (inventory, error) {
	h.t.Helper()
	var (
		inv  = inventory{}
		errs []error
		mu   sync.Mutex
		wg   sync.WaitGroup
	)
	for kind, list := range kinds {
		wg.Go(func() {
			found, err := list(h)
			mu.Lock()
			defer mu.Unlock()
			inv[kind] = found
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", kind, err))
			}
		})
	}
	wg.Wait()
	return inv, errors.Join(errs...)
}

// differs says which kinds have more or fewer than want, and of what.
func (inv inventory) differs(want inventory) error {
	var all []error
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		if len(inv[kind]) != len(want[kind]) {
			all = append(all, fmt.Errorf("%d %s, and %d without a kill: more %q, fewer %q", len(inv[kind]), kind, len(want[kind]),
				beyond(inv[kind], want[kind]), beyond(want[kind], inv[kind])))
		}
	}
	return errors.Join(all...)
}

// changing are the parts of a name that differ from run to run.
var changing = regexp.MustCompile(`[0-9a-f]{8,}|10\.213\.[0-9.]+|\b[0-9]+\b`)

// beyond is what a has more of than b.
func beyond(a, b []string) (more []string) {
	count := map[string]int{}
	for _, s := range b {
		count[changing.ReplaceAllString(s, "*")]++
	}
	for _, s := range a {
		if like := changing.ReplaceAllString(s, "*"); count[like] > 0 {
			count[like]--
		} else {
			more = append(more, s)
		}
	}
	return more
}

// lasting waits until the inventory is as it is without a kill.
func (h *host) lasting(limit time.Duration, want inventory) error {
	h.t.Helper()
	return lab.Await(h.t.Context(), limit, func() error {
		inv, err := h.take()
		if err != nil {
			return err
		}
		return inv.differs(want)
	})
}

// rest waits until two looks find the same.
func (h *host) rest() inventory {
	h.t.Helper()
	var before inventory
	h.eventually(20*time.Second, "it comes to rest", func() error {
		inv, err := h.take()
		if err == nil && before == nil {
			err = errors.New("the first look")
		}
		if err == nil {
			err = inv.differs(before)
		}
		before = inv
		return err
	})
	return before
}

func lines(text string, keep func(line string) bool) []string {
	var out []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && keep(line) {
			out = append(out, line)
		}
	}
	return out
}

func all(string) bool { return true }

func (h *host) ctrList(args ...string) ([]string, error) {
	out, err := h.ctr(args...)
	return lines(out, func(line string) bool { return !strings.HasPrefix(line, "KEY") && !strings.HasPrefix(line, "TASK") }), err
}

func (h *host) ingests() ([]string, error) {
	out, err := h.ctr("content", "active")
	return lines(out, func(line string) bool { return !strings.HasPrefix(line, "REF") }), err
}

// strayLeases are those that keep images for releases that aren't in history.
func (h *host) strayLeases() ([]string, error) {
	found, err := h.ctrList("leases", "ls", "-q")
	if err != nil {
		return nil, err
	}
	state, err := h.stored()
	for project, releases := range state.Releases {
		for _, r := range releases {
			sum := sha256.Sum256(fmt.Appendf(nil, "%s-release-%d", project, r.Number))
			id := "release-" + hex.EncodeToString(sum[:])[:32]
			found = slices.DeleteFunc(found, func(f string) bool { return f == id })
		}
	}
	return found, err
}

func (h *host) hostLines(keep func(string) bool, commands ...string) ([]string, error) {
	var out []string
	for _, c := range commands {
		text, err := lab.Output(h.t.Context(), h.lab.OnHost(strings.Fields(c)...)...)
		if err != nil {
			return nil, err
		}
		out = append(out, lines(text, keep)...)
	}
	return out, nil
}

func (h *host) links() ([]string, error) {
	return h.hostLines(all, "ip -br link") // also those that don't look like ours
}

func (h *host) routes() ([]string, error) {
	return h.hostLines(all, "ip -o route show table all proto 213", "ip -6 -o route show table all proto 213")
}

func (h *host) neighbours() ([]string, error) {
	return h.hostLines(func(line string) bool { return strings.Contains(line, " dev dun") }, "ip -o neigh show nud permanent", "ip -6 -o neigh show nud permanent")
}

func ours(line string) bool { return strings.Contains(line, "DUNNAGE-") }

func (h *host) ourRules() ([]string, error) {
	return h.hostLines(ours, "iptables-save", "ip6tables-save")
}

// foreign are the rules that aren't ours, with comments and counters left out.
func (h *host) foreign() string {
	h.t.Helper()
	notOurs := func(line string) bool { return !ours(line) && !strings.HasPrefix(line, "#") }
	found, err := h.hostLines(notOurs, "iptables-save", "ip6tables-save", "iptables-legacy-save", "nft list table inet foreign")
	if err != nil {
		h.t.Fatal(err)
	}
	for i, line := range found {
		if strings.HasPrefix(line, ":") {
			found[i], _, _ = strings.Cut(line, " [")
		}
	}
	return strings.Join(found, "\n")
}

// hostPart is what of the pool is the host's own: gateway, hold, visitor.
var hostPart = netip.PrefixFrom(lab.Pool.Addr(), 24)

// deadFlows are connections to addresses of the pool that no replica has.
func (h *host) deadFlows() ([]string, error) {
	live := map[netip.Addr]bool{}
	c := h.client()
	defer c.Close() // an open connection counts among the agent's
	status, err := c.Status(h.t.Context())
	if err != nil {
		return nil, err
	}
	for _, p := range status.Projects {
		for _, s := range p.Services {
			for _, r := range s.Replicas {
				for _, a := range r.Addresses {
					live[a] = true
				}
			}
		}
	}
	return h.hostLines(func(line string) bool {
		for _, f := range strings.Fields(line) {
			if src, ok := strings.CutPrefix(f, "src="); ok {
				a, err := netip.ParseAddr(src)
				if err == nil && lab.Pool.Contains(a) && !hostPart.Contains(a) && !live[a] {
					return true
				}
			}
		}
		return false
	}, "conntrack -L -o extended")
}

func (h *host) mounts() ([]string, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	return lines(string(b), func(line string) bool {
		f := strings.Fields(line)
		return len(f) > 4 && strings.HasPrefix(f[4], h.lab.Dir+"/")
	}), err
}

func (h *host) cgroups() ([]string, error) {
	var out []string
	for _, pattern := range []string{"/sys/fs/cgroup/%s/*/cgroup.procs", "/sys/fs/cgroup/*/%s/*/cgroup.procs"} {
		found, err := filepath.Glob(fmt.Sprintf(pattern, h.lab.Name))
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	return out, nil
}

// procs are the processes that the agent or its containerd began, but for
// health checks, which come and go.
func (h *host) procs() ([]string, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	var out []string
	for _, d := range dirs {
		line, err := os.ReadFile(filepath.Join(d, "cmdline"))
		if err != nil || len(line) == 0 {
			continue
		}
		argv := strings.ReplaceAll(string(line), "\x00", " ")
		program := filepath.Base(strings.Fields(argv)[0])
		cg, _ := os.ReadFile(filepath.Join(d, "cgroup"))
		switch {
		case strings.Contains(string(cg), "/"+h.lab.Name+"/"):
		case !strings.Contains(argv, h.lab.Dir+"/"):
			continue
		case !slices.Contains([]string{"containerd", "containerd-shim-runc-v2", "dunnage-log", "runc"}, program):
			continue
		}
		out = append(out, filepath.Base(d)+" "+argv)
	}
	return out, err
}

func (h *host) runFiles() ([]string, error) {
	return h.filesIn("run", func(path string) bool { return strings.HasPrefix(path, "run/containerd") })
}

// stateFiles leaves out what containerd has there, which is counted by kinds of
// its own, and logs of removed replicas, which are kept for a while.
func (h *host) stateFiles() ([]string, error) {
	return h.filesIn("state", func(path string) bool {
		return strings.HasPrefix(path, "state/containerd") || strings.HasPrefix(path, "state/logs/")
	})
}

func (h *host) filesIn(dir string, except func(path string) bool) ([]string, error) {
	var out []string
	err := filepath.WalkDir(h.lab.Path(dir), func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it went while we looked
		}
		rel, _ := filepath.Rel(h.lab.Dir, path)
		if err != nil || except(rel) {
			return err
		}
		if d.IsDir() && strings.Count(rel, "/") < 2 {
			return nil // stays when it is empty
		}
		out = append(out, rel)
		return nil
	})
	return out, err
}

func (h *host) records() ([]string, error) {
	state, err := h.stored()
	var out []string
	for _, r := range state.Replicas {
		out = append(out, r.ID)
	}
	return out, err
}

// stored reads a copy of the store, which the agent has locked.
func (h *host) stored() (spec.State, error) {
	b, err := os.ReadFile(h.lab.Path("state/dunnage.db"))
	if err != nil {
		return spec.State{}, err
	}
	dir, err := os.MkdirTemp(h.dir, "store")
	if err != nil {
		return spec.State{}, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "dunnage.db")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		return spec.State{}, err
	}
	st, err := store.Open(path)
	if err != nil {
		return spec.State{}, err
	}
	state, err := st.Load()
	return state, errors.Join(err, st.Close())
}

func entries(dir string) ([]string, error) {
	list, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	var out []string
	for _, e := range list {
		out = append(out, e.Name())
	}
	return out, err
}
