package e2e

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"dunnage/test/lab"
)

// cycled is what is deployed and removed again: two services, a volume, a
// config, published ports of both protocols.
const cycled = `name: cycle
services:
  web:
    image: example.org/app:v1
    ports: ["8080:80"]
    stop_grace_period: 5s
    volumes: ["data:/data"]
    configs: [{source: motd, target: /etc/motd}]
    x-dunnage: {drain: 0s, probe: {http: {port: 80, path: /health}, interval: 200ms}}
  peer:
    image: example.org/app:v2
    command: [serve, "80", "0", "53"]
    ports: ["8053:53/udp"]
    stop_grace_period: 5s
    depends_on: [web]
volumes: {data: {}}
configs: {motd: {content: "be kind"}}
`

// figures are what must not grow, by name.
type figures map[string]int

// A host on which projects come and go looks after hundreds of them as it did
// after the first few.
func TestCyclesLeaveNothing(t *testing.T) {
	h := newBareHost(t)
	program, err := faulty() // it tells how many goroutines it has
	if err != nil {
		t.Fatal(err)
	}
	tell := filepath.Join(t.TempDir(), "goroutines")
	if err := os.WriteFile(tell, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	h.agent.Program, h.agent.Env = program, []string{"DUNNAGE_FAULT=" + filepath.Dir(tell)}
	h.start()
	h.loadApp()
	n := rounds(10, 500)
	// History and the addresses that rest are full after the first of these.
	warm, every := n/3, max(n/50, 2)
	file := h.file("compose.yaml", cycled)
	var empty inventory
	var all []figures
	for i := range n {
		h.must("deploy", "-f", file)
		if text := h.must("down", "-p", "cycle", "--volumes"); !strings.Contains(text, "volume cycle_data removed, with its data\n") {
			t.Fatalf("cycle %d: %s", i, text)
		}
		if i < warm || i%every != 0 {
			continue
		}
		if empty == nil {
			empty = h.rest()
		} else if err := h.lasting(20*time.Second, empty); err != nil {
			t.Fatalf("after cycle %d: %v", i, err)
		}
		all = append(all, h.figures(tell))
	}
	first, last := highest(all[:len(all)/2]), highest(all[len(all)/2:])
	var text []string
	ok := true
	for _, name := range slices.Sorted(maps.Keys(first)) {
		text = append(text, fmt.Sprintf("%s %d, then %d", name, first[name], last[name]))
		ok = ok && last[name] <= first[name]+allowed(name, first[name])
	}
	row(t, fmt.Sprintf("%d deploy and remove cycles", n),
		"0 slope in fds, goroutines, memory, mounts, namespaces, links, cgroups, leases, store size, rules",
		fmt.Sprintf("%d kinds of resource equal; highest in the first and the second half: %s", len(kinds), strings.Join(text, ", ")), ok && !t.Failed())
}

// allowed is how much a figure may go up and down by itself: Go's heap is
// swept when it likes, threads are made for calls that block, and bbolt's file
// grows by doubling.
func allowed(name string, was int) int {
	switch name {
	case "memory (KiB)":
		return max(was/10, 4096)
	case "threads", "goroutines", "fds":
		return 3
	default:
		return 0
	}
}

func (h *host) figures(goroutines string) figures {
	h.t.Helper()
	fds, threads, rss, err := processFigures(h.lab.Pid("agent"))
	if err != nil {
		h.t.Fatal(err)
	}
	fi, err := os.Stat(h.lab.Path("state/dunnage.db"))
	if err != nil {
		h.t.Fatal(err)
	}
	b, err := os.ReadFile(goroutines)
	if err != nil {
		h.t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		h.t.Fatal(err)
	}
	return figures{"fds": fds, "threads": threads, "memory (KiB)": rss, "store (bytes)": int(fi.Size()), "goroutines": n}
}

func highest(all []figures) figures {
	most := figures{}
	for _, f := range all {
		for name, n := range f {
			most[name] = max(most[name], n)
		}
	}
	return most
}

// After a reboot everything is up again from what the host has itself.
func TestRebootOfTenServices(t *testing.T) {
	h := newHost(t)
	var b strings.Builder
	b.WriteString("name: ten\nservices:\n")
	for i := range 10 {
		fmt.Fprintf(&b, "  s%d:\n    image: example.org/hello:v1\n    restart: always\n    ports: [\"%d:80\"]\n    x-dunnage: {probe: {http: {port: 80, path: /healthz}, interval: 200ms}}\n", i, 8080+i)
	}
	h.mustDeploy(b.String())
	h.ready(10)
	h.reboot()
	began := time.Now()
	if err := h.agent.Launch(); err != nil {
		t.Fatal(err)
	}
	c := h.client()
	defer c.Close()
	var up, served time.Duration
	err := lab.Await(t.Context(), time.Minute, func() error {
		status, err := c.Status(t.Context())
		if err != nil {
			return err
		}
		n := 0
		for _, p := range status.Projects {
			for _, s := range p.Services {
				n += s.Ready
			}
		}
		if n != 10 {
			return fmt.Errorf("%d are ready", n)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	up = time.Since(began)
	for i := range 10 {
		h.eventually(10*time.Second, "it answers", func() error {
			_, err := h.get(8080+i, "/")
			return err
		})
	}
	served = time.Since(began)
	row(t, "all processes killed and the run directory emptied (a reboot): 10 services up, no network", "≤ 5 s",
		fmt.Sprintf("ready after %.1f s, all asked after %.1f s", up.Seconds(), served.Seconds()), up <= time.Duration(rounds(30, 5))*time.Second)
	h.clean(h.ready(10))
}

// processFigures are the open files, threads and resident memory (KiB) of a process.
func processFigures(pid int) (fds, threads, rss int, err error) {
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return 0, 0, 0, err
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		switch {
		case len(f) < 2:
		case f[0] == "Threads:":
			threads, _ = strconv.Atoi(f[1])
		case f[0] == "VmRSS:":
			rss, _ = strconv.Atoi(f[1])
		}
	}
	return len(open), threads, rss, err
}
