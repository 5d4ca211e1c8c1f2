package netns

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"dunnage/internal/testenv"
	"dunnage/spec"
)

// TestAbsent: without a replica a connection is refused at once, or held until
// one is there.
func TestAbsent(t *testing.T) {
	testenv.Host(t, func() {
		w := newWorld(t, Auto)
		one := network(1, false)
		app := w.start("app", member(one, 10))
		routing := func(absent spec.Absent, backends ...spec.Backend) spec.Routing {
			p := published(8080, 80, backends...)
			for i := range p {
				p[i].Absent = absent
			}
			return spec.Routing{Networks: []spec.NetworkAddressing{one}, Published: p}
		}
		for _, from := range []struct {
			ns *testenv.NS
			to netip.Addr
		}{{w.Client, w.HostAddr}, {w.Client, w.HostAddr6}, {w.Host, w.HostAddr}, {w.Host, netip.MustParseAddr("127.0.0.1")}, {w.Host, w.HostAddr6}} {
			to := netip.AddrPortFrom(from.to, 8080)
			w.apply(routing(spec.Refuse))
			start := time.Now()
			if _, err := from.ns.Dial("tcp", to.String(), 10*time.Second); err == nil || time.Since(start) > 5*time.Second {
				t.Errorf("refused connection to %s: %v after %v", to, err, time.Since(start))
			}
			w.apply(routing(spec.Hold))
			held := make(chan error, 1)
			go func() {
				c, err := from.ns.Dial("tcp", to.String(), 20*time.Second)
				if err == nil {
					_, err = testenv.AskOn(c)
					c.Close()
				}
				held <- err
			}()
			waitHeld(w, from.to.Is6())
			select {
			case err := <-held:
				t.Errorf("held connection to %s ended early: %v", to, err)
				continue
			default:
			}
			w.apply(routing(spec.Hold, app.backend(0)))
			if err := <-held; err != nil {
				t.Errorf("held connection to %s, once a replica is there: %v", to, err)
			}
		}
	})
}

// waitHeld waits until a packet has been held.
func waitHeld(w *world, v6 bool) {
	w.Helper()
	program := "iptables"
	if v6 {
		program = "ip6tables"
	}
	for {
		text := testenv.Run(w, program, "-xvnL")
		for line := range strings.Lines(text) {
			if f := strings.Fields(line); strings.Contains(line, "held until") && f[0] != "0" {
				testenv.Run(w, program, "-Z")
				return
			}
		}
		if w.ctx.Err() != nil {
			w.Fatalf("no packet was held:\n%s", text)
		}
	}
}

// TestAllow: only the listed clients and the host itself.
func TestAllow(t *testing.T) {
	testenv.Host(t, func() {
		w := newWorld(t, Auto)
		one := network(1, false)
		app := w.start("app", member(one, 10))
		p := published(8080, 80, app.backend(0))
		for i := range p {
			p[i].Allow = []netip.Prefix{netip.PrefixFrom(w.ClientAddr, 32), netip.PrefixFrom(w.ClientAddr6, 64)}
		}
		w.apply(spec.Routing{Networks: []spec.NetworkAddressing{one}, Published: p})
		eachTransport(func(network string) {
			w.wantAnswer("allowed", w.Client, network, w.HostAddr, 8080, "app", w.ClientAddr)
			w.wantAnswer("allowed", w.Client, network, w.HostAddr6, 8080, "app", w.ClientAddr6)
			w.wantNobody("not allowed", w.Attacker, network, w.HostAddr, 8080)
			w.wantNobody("not allowed", w.Attacker, network, w.HostAddr6, 8080)
			w.wantAnswer("the host", w.Host, network, w.HostAddr, 8080, "app", w.HostAddr)
			w.wantAnswer("the host by loopback", w.Host, network, netip.MustParseAddr("127.0.0.1"), 8080, "app", gateway(false))
		})
	})
}
