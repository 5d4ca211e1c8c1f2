package netns

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dunnage/internal/testenv"
	"dunnage/netns/rules"
	"dunnage/spec"
)

// TestAttach: what a replica finds in its namespace, and that Attach repairs
// what is missing and Detach leaves nothing.
func TestAttach(t *testing.T) {
	testenv.Host(t, func() {
		w := newWorld(t, Auto)
		testenv.Run(t, "ip", "link", "set", "lan0", "mtu", "1400")
		one, two := network(1, true), network(2, false)
		e := spec.Endpoint{Replica: "web-app-0a1b2c3d-1", Hostname: "app1", Addresses: []spec.EndpointAddress{member(one, 10), member(two, 10)}}
		check := func(when string) {
			t.Helper()
			if err := w.net.Attach(w.ctx, e); err != nil {
				t.Fatalf("%s: %v", when, err)
			}
			ns := testenv.OpenNS(t, w.net.Namespace(e.Replica))
			routes := ns.Run(t, "ip", "route") + ns.Run(t, "ip", "-6", "route")
			for _, want := range []string{
				"default via 169.254.1.1 dev eth0 src 10.213.2.10", "10.213.1.0/24 via 169.254.1.1 dev eth0 src 10.213.1.10", "10.213.2.0/24 via 169.254.1.1 dev eth0 src 10.213.2.10",
				"default via fe80::1 dev eth0 src fd00:d:0:2::a",
			} {
				if !strings.Contains(routes, want) {
					t.Errorf("%s: no route %q in\n%s", when, want, routes)
				}
			}
			if link := ns.Run(t, "ip", "link", "show", "eth0"); !strings.Contains(link, "mtu 1400") || !strings.Contains(link, "state UP") {
				t.Errorf("%s: link is %s", when, link)
			}
			w.wantAnswerFromHost(when, e.Addresses)
			if all, _, err := w.net.Attached(w.ctx); err != nil || !slices.Equal(all, []string{e.Replica}) {
				t.Errorf("%s: attached are %v (%v)", when, all, err)
			}
			wantSysctl(t, w.Host, "net/ipv4/conf/"+hostLink(e.Replica)+"/rp_filter", "1")
			wantSysctl(t, ns, "net/ipv4/ip_unprivileged_port_start", "0")
		}
		check("first")
		check("again")
		testenv.Run(t, "ip", "route", "del", "10.213.2.10")
		check("without a route")
		testenv.Run(t, "ip", "link", "set", hostLink(e.Replica), "down")
		check("with the link down")
		testenv.Run(t, "ip", "link", "del", hostLink(e.Replica))
		check("without the link")
		testenv.Run(t, "umount", "-l", w.net.Namespace(e.Replica))
		check("without the namespace")
		if err := os.RemoveAll(filepath.Join(testenv.HostRunDir, "replicas")); err != nil {
			t.Fatal(err)
		}
		check("without the files")

		testenv.Run(t, "umount", "-l", w.net.Namespace(e.Replica)) // the namespace vanishes first
		for range 2 {
			if err := w.net.Detach(w.ctx, e.Replica); err != nil {
				t.Fatal(err)
			}
		}
		if all, _, err := w.net.Attached(w.ctx); err != nil || len(all) != 0 {
			t.Errorf("attached after Detach: %v (%v)", all, err)
		}
	})
}

// TestDetach: the kernel takes the link away with the namespace. One that is
// still held is nobody's and isn't used again.
func TestDetach(t *testing.T) {
	testenv.Host(t, func() {
		w := newWorld(t, Auto)
		awaitNoLink := func() {
			t.Helper()
			for until := time.Now().Add(10 * time.Second); strings.Contains(testenv.Run(t, "ip", "link"), rules.LinkPrefix); time.Sleep(time.Millisecond) {
				if time.Now().After(until) {
					t.Fatalf("links after Detach:\n%s", testenv.Run(t, "ip", "link"))
				}
			}
		}
		e := spec.Endpoint{Replica: "app", Hostname: "app", Addresses: []spec.EndpointAddress{member(network(1, false), 10)}}
		if err := errors.Join(w.net.Attach(w.ctx, e), w.net.Detach(w.ctx, e.Replica)); err != nil {
			t.Fatal(err)
		}
		awaitNoLink()

		if err := w.net.Attach(w.ctx, e); err != nil {
			t.Fatal(err)
		}
		held, err := os.Open(w.net.Namespace(e.Replica))
		if err != nil {
			t.Fatal(err)
		}
		if err := w.net.Detach(w.ctx, e.Replica); err != nil {
			t.Fatal(err)
		}
		if some, _, err := w.net.Attached(w.ctx); err != nil || len(some) > 0 {
			t.Errorf("attached after Detach: %v (%v)", some, err)
		}
		again := w.start(e.Replica, e.Addresses...)
		// Long enough for a second SYN: see disownLink.
		c, err := w.Host.Dial("tcp", netip.AddrPortFrom(addr4(1, 10), 80).String(), 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		before, err := held.Stat()
		if err != nil {
			t.Fatal(err)
		}
		if now, err := os.Stat(w.net.Namespace(again.id)); err != nil || os.SameFile(before, now) {
			t.Errorf("attached again to the namespace that somebody else holds (%v)", err)
		}
		held.Close()
	})
}

// wantAnswerFromHost pings each address.
func (w *world) wantAnswerFromHost(when string, addrs []spec.EndpointAddress) {
	w.Helper()
	r := replica{testenv.OpenNS(w, w.net.Namespace("web-app-0a1b2c3d-1")), "x", addrs}
	for _, a := range addrs {
		for _, to := range []netip.Addr{a.Addr, a.Addr6} {
			l, err := r.Listen("tcp", netip.AddrPortFrom(to, 0).String())
			if err != nil {
				w.Fatalf("%s: %v", when, err)
			}
			c, err := w.Host.Dial("tcp", l.Addr().String(), testenv.AskTimeout)
			if err != nil {
				w.Errorf("%s: the host doesn't reach %s: %v", when, to, err)
			} else {
				c.Close()
			}
			l.Close()
		}
	}
}

func wantSysctl(t *testing.T, ns *testenv.NS, name, want string) {
	t.Helper()
	var got string
	err := ns.Do(func() (err error) {
		got, err = sysctl{name: name}.read()
		return err
	})
	if err != nil || got != want {
		t.Errorf("%s is %q (%v), want %q", name, got, err, want)
	}
}

// TestNoIPv6: without an IPv6 pool a replica has no IPv6 address at all.
func TestNoIPv6(t *testing.T) {
	testenv.Host(t, func() {
		w := newWorld(t, Auto)
		w.net.cfg.Pool6 = netip.Prefix{}
		m := member(network(1, false), 10)
		m.Addr6, m.Subnet6 = netip.Addr{}, netip.Prefix{}
		r := w.start("app", m)
		if out := r.Run(t, "ip", "-6", "addr", "show", "dev", "eth0"); strings.TrimSpace(out) != "" {
			t.Errorf("IPv6 addresses: %s", out)
		}
		w.apply(spec.Routing{Networks: []spec.NetworkAddressing{{ID: "web_net1", Subnet: m.Subnet}}, Published: published(8080, 80, r.backend(0))})
		w.wantAnswer("IPv4 only", w.Client, "tcp", w.HostAddr, 8080, "app", w.ClientAddr)
		w.wantNobody("IPv4 only", w.Client, "tcp", w.HostAddr6, 8080)
		if text := save(t, w.net.tables.backend, "ip6tables"); strings.Contains(text, "DUNNAGE") {
			t.Errorf("IPv6 rules:\n%s", text)
		}
	})
}

// TestMTU: a replica's link has the MTU of the default route's device, or the
// largest that a veth takes.
func TestMTU(t *testing.T) {
	testenv.Host(t, func() {
		w := newWorld(t, Auto)
		testenv.Run(t, "ip", "link", "set", "lo", "up", "mtu", "65536")
		testenv.Run(t, "ip", "route", "replace", "default", "dev", "lo")
		r := w.start("app", member(network(1, false), 10))
		if out := r.Run(t, "ip", "link", "show", "dev", "eth0"); !strings.Contains(out, "mtu 65535 ") {
			t.Errorf("link beside a default route over loopback: %s", out)
		}
	})
}

// TestParallelAttach: replicas come and go side by side, on a host that isn't
// set up yet.
func TestParallelAttach(t *testing.T) {
	testenv.Host(t, func() {
		w := newWorld(t, Auto)
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				id := fmt.Sprint("app", i)
				err := w.net.Attach(w.ctx, spec.Endpoint{Replica: id, Hostname: id, Addresses: []spec.EndpointAddress{member(network(1, false), 10+i)}})
				if err == nil && i%2 == 0 {
					err = w.net.Detach(w.ctx, id)
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if all, _, err := w.net.Attached(w.ctx); err != nil || len(all) != 10 {
			t.Errorf("attached are %v (%v), want the ten with odd numbers", all, err)
		}
		if _, equal, err := w.net.Routed(w.ctx, spec.Routing{}); err != nil || equal {
			t.Errorf("no rules yet, but equal is %v (%v)", equal, err)
		}
	})
}
