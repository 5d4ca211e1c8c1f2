package netns

import (
	"context"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"dunnage/internal/testenv"
	"dunnage/spec"
)

// generous is far more than any news takes.
const generous = 10 * time.Second

func TestChangesNFT(t *testing.T)    { testenv.Host(t, func() { testChanges(t, NFT) }) }
func TestChangesLegacy(t *testing.T) { testenv.Host(t, func() { testChanges(t, Legacy) }) }

// testChanges: whoever changes something that is ours, or in the way of ours,
// is noticed without a look.
func testChanges(t *testing.T, backend Backend) {
	w := newWorld(t, backend)
	one := member(network(1, false), 10)
	app := w.attach("app", one)
	r := sample()
	r.Published = published(8080, 80, app.backend(0))
	w.apply(r)
	look(t, w, r)
	ctx, cancel := context.WithCancel(t.Context())
	news := w.net.Changes(ctx)
	ipt, link := "iptables-"+string(backend), hostLink("app")
	for _, change := range []string{
		ipt + " -t nat -F",
		ipt + " -A FORWARD -p tcp --dport 25 -j DROP",
		ipt + " -R FORWARD 1 -p tcp --dport 26 -j DROP", // no larger and no smaller
		ipt + " -P FORWARD DROP",
		"ip6" + ipt[2:] + " -t raw -F PREROUTING",
		"sysctl -qw net.ipv4.conf." + link + ".forwarding=0",
		"sysctl -qw net.ipv4.ip_forward=0",
		"sysctl -qw net.ipv6.conf.all.forwarding=0",
		"sysctl -qw net.ipv4.conf." + link + ".route_localnet=0",
		"ip route del " + one.Addr.String(),
		"ip -6 route del " + one.Addr6.String(),
		"ip route del local " + addr4(1, 2).String() + " table local",
		"ip route del unreachable " + pool4.String(),
		"ip neigh del " + one.Addr.String() + " dev " + link,
		"ip addr del " + gateway(false).String() + "/32 dev lo",
		"nsenter --net=" + w.net.Namespace("app") + " ip link set eth0 down",
		"nsenter --net=" + w.net.Namespace("app") + " ip link set eth0 address 02:11:22:33:44:55",
		"nsenter --net=" + w.net.Namespace("app") + " ip link set eth0 mtu 1400",
		"ip link set " + link + " address 02:11:22:33:44:55",
		"ip link set " + link + " arp off",
		"ip link set " + link + " down",
		"ip link del " + link,
	} {
		drain(news)
		testenv.Run(t, "sh", "-ec", change)
		select {
		case <-news:
		case <-time.After(generous):
			t.Errorf("nobody noticed %q", change)
		}
	}
	cancel()
	closed := time.After(generous)
	for {
		select {
		case _, open := <-news:
			if !open {
				return
			}
		case <-closed:
			t.Fatal("the channel isn't closed when its context has ended")
		}
	}
}

// look reads all, as the loop does.
func look(t *testing.T, w *world, r spec.Routing) {
	t.Helper()
	if _, _, err := w.net.Routed(w.ctx, r); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.net.Attached(w.ctx); err != nil {
		t.Fatal(err)
	}
}

// drain waits until there is no news.
func drain(news <-chan struct{}) {
	for {
		select {
		case <-news:
		case <-time.After(pace + pollEvery):
			return
		}
	}
}

// TestChangesOfOthers: what isn't about us is no news, and many changes are few.
func TestChangesOfOthers(t *testing.T) {
	testenv.Host(t, func() {
		w := newWorld(t, NFT)
		w.apply(spec.Routing{})
		news := w.net.Changes(t.Context())
		drain(news)
		testenv.Run(t, "sh", "-ec", "ip link add other0 type veth peer name other1; ip addr add 192.0.2.1/24 dev other0; ip link set other0 up; ip neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev other0")
		drain(news)
		w.Client.Run(t, "ip", "link", "set", "eth0", "mtu", "1400")
		testenv.Run(t, "sh", "-ec", "for i in $(seq 50); do ip neigh change 192.0.2.9 lladdr 02:00:00:00:00:09 dev other0; ip route add 192.0.2.$((i+99)) via 192.0.2.9; done")
		select {
		case <-news:
			t.Error("routes and neighbours of others are news")
		case <-time.After(3 * pace):
		}
		began := time.Now()
		var values atomic.Int32
		go func() {
			for range news {
				values.Add(1)
			}
		}()
		testenv.Run(t, "sh", "-ec", "iptables-nft -N X; for i in $(seq 40); do iptables-nft -A X -j RETURN; done")
		time.Sleep(pace)
		if n, most := int(values.Load()), paceBurst+1+int(time.Since(began)/pace); n == 0 || n > most {
			t.Errorf("40 commits in %v made %d values, want 1 to %d", time.Since(began), n, most)
		}
	})
}

// TestFingerprint: the number of legacy tables changes with their rules, and
// not with what passes through them.
func TestFingerprint(t *testing.T) {
	testenv.Host(t, func() {
		w := newWorld(t, Legacy)
		for _, p := range []programs{w.net.tables.v4, w.net.tables.v6} {
			number := func() uint64 {
				t.Helper()
				n, err := p.xtables.fingerprint(p.proto)
				if err != nil || n == 0 {
					t.Fatalf("%s: number %d, %v", p.name(), n, err)
				}
				return n
			}
			if p.inUse() {
				t.Fatalf("%s has tables before anybody asked for one", p.name())
			}
			last := number()
			if p.inUse() {
				t.Errorf("%s: asking for the number has made a table", p.name())
			}
			for _, args := range []string{
				"-A OUTPUT -p tcp --dport 25 -j DROP", "-R OUTPUT 1 -p tcp --dport 26 -j DROP", "-A OUTPUT -p udp --dport 26 -j DROP",
				"-P FORWARD DROP", "-t nat -N X", "-t nat -A X -m statistic --mode random --probability 0.5 -j RETURN", "-t nat -A OUTPUT -j X",
				"-t mangle -A OUTPUT -m limit --limit 1/s -j ACCEPT",
			} {
				testenv.Run(t, p.iptables, strings.Fields(args)...)
				next := number()
				if next == last {
					t.Errorf("%s %s: the same number", p.name(), args)
				}
				last = next
			}
			for _, to := range []netip.Addr{w.HostAddr, w.HostAddr6} {
				w.wantNobody("a port without a server", w.Host, "udp", to, 9)
			}
			if number() != last {
				t.Errorf("%s: packets change the number", p.name())
			}
		}
	})
}
