package netns

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dunnage/internal/testenv"
	"dunnage/spec"
)

// TestDamage: whatever of a running replica's network gets lost on the host is
// seen by the next look, and Attach brings it back to the same process.
func TestDamage(t *testing.T) {
	testenv.Host(t, func() {
		w := newWorld(t, Auto)
		one := member(network(1, false), 10)
		e := spec.Endpoint{Replica: "app", Hostname: "app", Addresses: []spec.EndpointAddress{one}}
		app := w.attach(e.Replica, one)
		process := w.sleeper(w.net.Namespace(e.Replica))
		other := w.attach("other", member(network(1, false), 11))
		w.sleeper(w.net.Namespace(other.id)) // whose namespace must not be mistaken for app's
		l, err := app.Listen("tcp", "[::]:80")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()

		check := func(when string, want ...string) {
			t.Helper()
			_, whole, err := w.net.Attached(w.ctx)
			if err != nil || !slices.Equal(whole, want) {
				t.Errorf("%s: whole are %v (%v), want %v", when, whole, err, want)
			}
		}
		check("at first", "app", "other")
		link, path := hostLink(e.Replica), w.net.Namespace(e.Replica)
		for _, damage := range []string{
			"ip link set " + link + " down",
			"ip link set " + link + " down; ip link set " + link + " up",
			"ip route flush root 10.213.1.10/32",
			"ip -6 route flush root " + one.Addr6.String() + "/128",
			"ip route replace unreachable 10.213.1.10 proto 213",
			"ip route replace 10.213.1.10 dev lan0 proto 213",
			"ip neigh del 10.213.1.10 dev " + link,
			"ip neigh replace " + one.Addr6.String() + " dev " + link + " lladdr 02:00:00:00:00:01 nud permanent",
			"ip neigh replace 10.213.1.10 dev " + link + " nud stale",
			"sysctl -qw net.ipv4.conf." + link + ".route_localnet=0",
			"umount -l " + path,
			"umount -l " + path + "; rm " + path,
			"rm " + w.net.dir(e.Replica) + "/" + addressesFile,
		} {
			testenv.Run(t, "sh", "-ec", damage)
			check("after "+damage, "other")
			if err := w.net.Attach(w.ctx, e); err != nil {
				t.Fatalf("after %s: %v", damage, err)
			}
			check("after "+damage+" and Attach", "app", "other")
			if !sameFile(t, path, fmt.Sprintf("/proc/%d/ns/net", process)) {
				t.Errorf("after %s: the replica's namespace isn't that of its process", damage)
			}
			for _, addr := range []string{one.Addr.String(), "[" + one.Addr6.String() + "]"} {
				// Long enough for a second SYN: the kernel lets packets through a
				// link some time after it is set up.
				c, err := w.Host.Dial("tcp", addr+":80", 10*time.Second)
				if err != nil {
					t.Errorf("after %s: %v", damage, err)
					continue
				}
				c.Close()
			}
		}
	})
}

// sleeper starts a process in the namespace at path.
func (w *world) sleeper(path string) (pid int) {
	w.Helper()
	cmd := exec.Command("nsenter", "--net="+path, "sleep", "600")
	if err := cmd.Start(); err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for { // until nsenter has entered
		comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", cmd.Process.Pid))
		if err != nil || w.ctx.Err() != nil {
			w.Fatal(err, w.ctx.Err())
		}
		if strings.TrimSpace(string(comm)) == "sleep" {
			return cmd.Process.Pid
		}
	}
}

func sameFile(t *testing.T, a, b string) bool {
	t.Helper()
	one, err := os.Stat(a)
	if err != nil {
		t.Fatal(err)
	}
	two, err := os.Stat(b)
	if err != nil {
		t.Fatal(err)
	}
	return os.SameFile(one, two)
}

// BenchmarkAttached is the look at the network of 300 replicas, which every
// event and every second brings. Goal: 150 ms.
func BenchmarkAttached(b *testing.B) {
	testenv.Host(b, func() {
		w := newWorld(b, Auto)
		const replicas = 300
		for i := range replicas {
			m := member(network(1, false), 10)
			m.Subnet, m.Addr = pool4, addr4(10+i/200, 10+i%200)
			m.Subnet6, m.Addr6 = pool6, addr6(10+i/200, 10+i%200)
			w.attach(fmt.Sprint("web-app-0a1b2c3d-", i), m)
		}
		for b.Loop() {
			if _, whole, err := w.net.Attached(w.ctx); err != nil || len(whole) != replicas {
				b.Fatalf("%d are whole (%v), want %d", len(whole), err, replicas)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/replicas, "µs/replica")
		for i := range replicas {
			if err := w.net.Detach(w.ctx, fmt.Sprint("web-app-0a1b2c3d-", i)); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// TestDisownedLink: a link whose namespace the kernel keeps, for a process or a
// socket that lives on in it, goes soon all the same.
func TestDisownedLink(t *testing.T) {
	testenv.Host(t, func() {
		w := newWorld(t, Auto)
		w.attach("app", member(network(1, false), 10))
		w.attach("other", member(network(1, false), 11))
		w.sleeper(w.net.Namespace("app"))
		if err := w.net.Detach(w.ctx, "app"); err != nil {
			t.Fatal(err)
		}
		there := func(replica string) bool {
			return exec.Command("ip", "link", "show", hostLink(replica)).Run() == nil
		}
		if !there("app") {
			t.Fatal("the link went with its name")
		}
		for end := time.Now().Add(10 * disownedFor); there("app"); time.Sleep(disownedFor / 10) {
			if time.Now().After(end) {
				t.Fatal("the link stays")
			}
			if _, err := w.net.Sweep(w.ctx); err != nil {
				t.Fatal(err)
			}
		}
		if _, whole, err := w.net.Attached(w.ctx); err != nil || !slices.Equal(whole, []string{"other"}) || !there("other") {
			t.Errorf("whole are %v, %v", whole, err)
		}
	})
}

// TestStrange: what isn't an agent's among the namespaces and files is nobody's
// replica, and stays; what a crash of ours leaves there is.
func TestStrange(t *testing.T) {
	testenv.Host(t, func() {
		w := newWorld(t, NFT)
		w.attach("app", member(network(1, false), 10))
		run := testenv.HostRunDir
		for _, dir := range []string{"netns/dir", "netns/full/inside", "replicas/crashed-in-attach", "replicas/crashed-later"} {
			if err := os.MkdirAll(filepath.Join(run, dir), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		for _, file := range []string{"netns/foo", "replicas/bar", "netns/crashed-later"} {
			if err := os.WriteFile(filepath.Join(run, file), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		some, whole, err := w.net.Attached(w.ctx)
		if want := []string{"app", "crashed-in-attach", "crashed-later"}; err != nil || !slices.Equal(some, want) || !slices.Equal(whole, []string{"app"}) {
			t.Errorf("attached %v, whole %v (%v), want %v", some, whole, err, want)
		}
		strange, err := w.net.Strange()
		if want := run + "/replicas/bar " + run + "/netns/dir " + run + "/netns/foo " + run + "/netns/full"; err != nil || strings.Join(strange, " ") != want {
			t.Errorf("strange: %v (%v), want %s", strange, err, want)
		}
	})
}
