package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dunnage/internal/testenv"
	"dunnage/spec"
	"dunnage/test/load"
)

// moments are times of death, random but told.
func moments(t *testing.T) *rand.Rand {
	seed := rand.Uint64()
	t.Logf("moments of death by seed %d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

// Agent and containerd may die at any time of one redeploy after the other:
// no request is lost.
func TestRandomKillsOfDaemons(t *testing.T) {
	h := newHost(t)
	rng := moments(t)
	h.mustDeploy(hello("v1", 2, ""))
	h.ready(2)
	files := []string{h.file("v2.yaml", hello("v2", 2, "")), h.file("v1.yaml", hello("v1", 2, ""))}
	for what, kill := range map[string]func(h *host){
		"agent": func(h *host) { killAgent(h); h.start() },
		"containerd": func(h *host) {
			pid := h.containerdPid()
			h.killPid(pid)
			h.eventually(30*time.Second, "another containerd", func() error {
				if now := h.findContainerd(); now == 0 || now == pid {
					return errors.New("not yet")
				}
				return nil
			})
		},
	} {
		t.Run(what, func(t *testing.T) {
			h := h.in(t)
			n := rounds(3, 100)
			rep := h.under(8080, load.Config{Rate: 300}, func() {
				for i := range n {
					done := make(chan result, 1)
					go func() { done <- h.run(nil, "deploy", "-f", files[i%2]) }()
					time.Sleep(time.Duration(rng.Int64N(int64(900 * time.Millisecond)))) // the moment of death is the test's input
					kill(h)
					<-done // the command may have lost its agent
					h.oneGeneration(2)
				}
			})
			row(t, fmt.Sprintf("%d random kills of the %s during redeploys, 300 requests/s", n, what), "0 failed",
				fmt.Sprintf("%d of %d failed, longest gap %.0f ms", rep.Failed, rep.Asked, rep.LongestGap), rep.Failed == 0)
		})
	}
	h.clean(h.ready(2))
}

// A replica whose shim or process is killed comes back, and never beside a copy
// that still lives; new connections soon go to the other one alone.
func TestRandomKillsOfReplicas(t *testing.T) {
	h := newHost(t)
	rng := moments(t)
	h.mustDeploy(hello("v1", 2, "    restart: always\n"))
	h.ready(2)
	for what, victim := range map[string]func(h *host, r spec.ReplicaStatus) int{
		"workload": func(_ *host, r spec.ReplicaStatus) int { return r.Pid },
		"shim": func(h *host, r spec.ReplicaStatus) int {
			return h.findProcess(func(argv []string) bool {
				line := strings.Join(argv, " ") + " "
				return strings.HasPrefix(filepath.Base(argv[0]), "containerd-shim") && strings.Contains(line, "-namespace "+h.lab.Name+" ") && strings.Contains(line, "-id "+r.Replica+" ")
			})
		},
	} {
		t.Run(what, func(t *testing.T) {
			h := h.in(t)
			n := rounds(3, 100)
			watch := h.watchCopies("/hello")
			traffic, err := h.lab.StartTraffic(filepath.Join(h.tools, "dunnage-load"), load.Config{Addr: h.lab.Host.String() + ":8080", Rate: 300})
			if err != nil {
				t.Fatal(err)
			}
			for range n {
				h.kill(rng, victim)
			}
			rep, err := traffic.Stop()
			if err != nil {
				t.Fatal(err)
			}
			most := watch()
			// Of two replicas the dead one gets half of the 300 a second.
			dead := time.Duration(float64(rep.Failed) / 150 / float64(n) * float64(time.Second))
			row(t, fmt.Sprintf("%d random kills of the %s of one of two replicas", n, what),
				"never two live copies; requests to the dead one for ≤ 1 s",
				fmt.Sprintf("%d live copies at most, requests to the dead one for %d ms on average", most, dead.Milliseconds()), most == 1 && dead <= time.Second)
		})
	}
	h.clean(h.ready(2))
}

// kill kills the process of a random replica and waits until that is back.
func (h *host) kill(rng *rand.Rand, victim func(*host, spec.ReplicaStatus) int) {
	h.t.Helper()
	r := h.ready(2)[rng.IntN(2)]
	pid := victim(h, r)
	if pid == 0 {
		h.t.Fatalf("nothing to kill of %s", r.Replica)
	}
	time.Sleep(time.Duration(rng.Int64N(int64(100 * time.Millisecond)))) // as above
	h.killPid(pid)
	h.eventually(time.Minute, r.Replica+" is back", func() error {
		for _, now := range h.ps() {
			if now.Replica == r.Replica && now.State == spec.StateReady && now.Pid != r.Pid {
				return nil
			}
		}
		return errors.New("not yet")
	})
	// The delay before the next start grows with each death and is forgotten
	// after a while; here it would only make the test longer.
	h.must("restart", "-p", "hello")
	h.ready(2)
}

// watchCopies counts the live processes of a program in each replica's cgroup
// until it is asked for the most that it has seen.
func (h *host) watchCopies(program string) func() int {
	ctx, stop := context.WithCancel(h.t.Context())
	most := 0
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			for _, n := range h.copies(program) {
				most = max(most, n)
			}
			time.Sleep(5 * time.Millisecond) // between two looks, to leave the CPU to others
		}
	})
	return func() int { stop(); wg.Wait(); return most }
}

// copies counts the live processes of a program by replica.
func (h *host) copies(program string) map[string]int {
	groups, _ := h.cgroups() // a pattern that is right
	out := map[string]int{}
	seen := map[string]bool{}
	for _, procs := range groups {
		b, err := os.ReadFile(procs)
		if err != nil {
			continue
		}
		for _, pid := range strings.Fields(string(b)) {
			exe, err := os.Readlink("/proc/" + pid + "/exe")
			if err == nil && exe == program && !seen[pid] {
				seen[pid] = true // each controller lists it
				out[filepath.Base(filepath.Dir(procs))]++
			}
		}
	}
	return out
}

// A UDP client that keeps sending from one port comes to the new replicas, also
// where the host's port isn't the container's.
func TestUDPFollowsRedeploys(t *testing.T) {
	h := newHost(t)
	h.loadApp()
	manifest := func(version string) string {
		return fmt.Sprintf(`name: app
services:
  echo:
    image: example.org/app:%s
    hostname: %s
    command: [serve, "80", "0", "53"]
    ports: ["5353:53/udp"]
    stop_grace_period: 1s
    x-dunnage: {drain: 200ms, probe: {http: {port: 80, path: /health}, interval: 200ms}}
`, version, version)
	}
	h.mustDeploy(manifest("v1"))
	h.ready(1)
	c, err := testenv.OpenNS(t, h.lab.ClientPath()).ListenPacket("udp", ":45353")
	if err != nil {
		t.Fatal(err)
	}
	flow := &udpFlow{conn: c, to: net.UDPAddrFromAddrPort(netip.AddrPortFrom(h.lab.Host, 5353))}
	flow.begin(t)
	n := rounds(3, 50)
	var took []time.Duration
	for i := range n {
		next := []string{"v2", "v1"}[i%2]
		h.mustDeploy(manifest(next)) // returns once the rules are swapped
		swapped := time.Now()
		h.eventually(30*time.Second, "the flow goes to the new replica", func() error {
			if now := flow.last(); now != next {
				return fmt.Errorf("%q answers", now)
			}
			return nil
		})
		took = append(took, time.Since(swapped))
	}
	slowest := slices.Max(took)
	row(t, fmt.Sprintf("UDP flow from one source port over %d redeploys, host port ≠ container port", n), "new backend ≤ 1 s after the swap",
		fmt.Sprintf("slowest %d ms", slowest.Milliseconds()), slowest <= time.Second)
	h.clean(h.ready(1))
}

// udpFlow sends a datagram every 20 ms and notes who answers.
type udpFlow struct {
	conn net.PacketConn
	to   net.Addr
	mu   sync.Mutex
	from string
}

func (f *udpFlow) last() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.from
}

func (f *udpFlow) begin(t *testing.T) {
	var wg sync.WaitGroup
	over := make(chan struct{})
	t.Cleanup(func() { close(over); _ = f.conn.Close(); wg.Wait() })
	wg.Go(func() {
		for tick := time.NewTicker(20 * time.Millisecond); ; {
			select {
			case <-over:
				tick.Stop()
				return
			case <-tick.C:
				_, _ = f.conn.WriteTo([]byte("who?"), f.to) // refused while nobody is there
			}
		}
	})
	wg.Go(func() {
		buf := make([]byte, 1500)
		for {
			n, _, err := f.conn.ReadFrom(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if name, _, ok := strings.Cut(string(buf[:n]), " "); ok && err == nil {
				f.mu.Lock()
				f.from = name
				f.mu.Unlock()
			}
		}
	})
}
