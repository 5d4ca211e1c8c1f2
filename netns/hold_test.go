package netns

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"dunnage/internal/testenv"
	"dunnage/spec"
)

// TestHold: wherever a connection comes from, it waits while nobody is ready,
// is answered when somebody is, and is reset when it isn't held any more. What
// isn't TCP is refused at once.
func TestHold(t *testing.T) {
	testenv.Host(t, func() {
		w := newWorld(t, Auto)
		one := network(1, false)
		app, side := w.start("app", member(one, 10)), w.start("side", member(one, 11))
		routing := func(absent spec.Absent, backends ...spec.Backend) spec.Routing {
			p := published(8080, 80, backends...)
			p[0].Absent = absent
			return spec.Routing{
				Networks:  []spec.NetworkAddressing{one},
				Services:  []spec.ServiceRoute{{Project: "web", Service: "app", Network: one.ID, Addr: addr4(1, 2), Addr6: addr6(1, 2), Backends: backends, Absent: absent}},
				Published: p,
			}
		}
		type way struct {
			what string
			ns   *testenv.NS
			to   netip.AddrPort
		}
		var ways []way
		for _, a := range []struct {
			what string
			ns   *testenv.NS
			to   netip.Addr
			port uint16
		}{
			{"from outside", w.Client, w.HostAddr, 8080}, {"from outside", w.Client, w.HostAddr6, 8080},
			{"from the host", w.Host, w.HostAddr, 8080}, {"from the host", w.Host, w.HostAddr6, 8080},
			{"from the host by loopback", w.Host, netip.MustParseAddr("127.0.0.1"), 8080},
			{"from the host to the service", w.Host, addr4(1, 2), 80}, {"from the host to the service", w.Host, addr6(1, 2), 80},
			{"from a replica", side.NS, addr4(1, 2), 80}, {"from a replica", side.NS, addr6(1, 2), 80},
			{"from a replica to the host's port", side.NS, w.HostAddr, 8080},
			{"from a replica of its own", app.NS, addr4(1, 2), 80}, {"from a replica of its own", app.NS, addr6(1, 2), 80},
		} {
			ways = append(ways, way{fmt.Sprintf("%s to %s", a.what, a.to), a.ns, netip.AddrPortFrom(a.to, a.port)})
		}
		// connect lets all of them connect, lets time pass and changes the rules.
		connect := func(then spec.Routing) (errs []error, took []time.Duration) {
			w.apply(routing(spec.Hold))
			errs, took = make([]error, len(ways)), make([]time.Duration, len(ways))
			var wg sync.WaitGroup
			for i, x := range ways {
				wg.Go(func() {
					begun := time.Now()
					c, err := x.ns.Dial("tcp", x.to.String(), 20*time.Second)
					if took[i] = time.Since(begun); err == nil {
						_, err = testenv.AskOn(c)
						c.Close()
					}
					errs[i] = err
				})
			}
			time.Sleep(500 * time.Millisecond) // all have sent their first SYN, none the second
			w.apply(then)
			wg.Wait()
			return errs, took
		}
		errs, took := connect(routing(spec.Hold, app.backend(0)))
		for i, x := range ways {
			if errs[i] != nil || took[i] < 500*time.Millisecond {
				t.Errorf("%s, once a replica is there: %v after %s", x.what, errs[i], took[i])
			}
		}
		errs, took = connect(routing(spec.Refuse))
		for i, x := range ways {
			if !errors.Is(errs[i], syscall.ECONNREFUSED) || took[i] < 500*time.Millisecond {
				t.Errorf("%s, once nothing is held any more: %v after %s", x.what, errs[i], took[i])
			}
		}
		w.apply(routing(spec.Hold))
		for _, x := range ways {
			begun := time.Now()
			c, err := x.ns.Dial("udp", x.to.String(), time.Second)
			if err == nil {
				_, err = testenv.AskOn(c)
				c.Close()
			}
			// What the host sends itself fails in the send: OUTPUT rejects it.
			refused := errors.Is(err, syscall.ECONNREFUSED) || x.ns == w.Host && errors.Is(err, syscall.EPERM)
			if !refused || time.Since(begun) > testenv.AskTimeout {
				t.Errorf("%s, a datagram: %v after %s", x.what, err, time.Since(begun))
			}
		}
	})
}
