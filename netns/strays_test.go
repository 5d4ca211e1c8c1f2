package netns

import (
	"net/netip"
	"testing"

	"dunnage/internal/testenv"
	"dunnage/spec"
)

// TestStrays: a connection that is answered from an address that nobody has any
// more is found and forgotten, and one of a replica isn't.
func TestStrays(t *testing.T) {
	testenv.Host(t, func() {
		w := newWorld(t, Auto)
		one := network(1, false)
		app, gone := w.start("app", member(one, 10)), w.start("gone", member(one, 11))
		w.apply(spec.Routing{Networks: []spec.NetworkAddressing{one}, Published: append(published(8080, 80, app.backend(0)), published(8081, 80, gone.backend(0))...)})
		for port := range uint16(2) {
			c, err := w.Client.Dial("tcp", netip.AddrPortFrom(w.HostAddr, 8080+port).String(), testenv.AskTimeout)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			if _, err := testenv.AskOn(c); err != nil {
				t.Fatal(err)
			}
		}
		strays := func(want int, alive ...netip.Addr) {
			t.Helper()
			known := map[netip.Addr]bool{}
			for _, a := range alive {
				known[a] = true
			}
			found, err := w.net.Strays(w.ctx, known)
			if err != nil || found[addr4(1, 11)] != want || found[addr4(1, 10)] != 0 {
				t.Errorf("strays: %v, %v; want %d", found, err, want)
			}
		}
		strays(0, addr4(1, 10), addr4(1, 11))
		strays(1, addr4(1, 10))
		if err := w.net.ForgetStrays(w.ctx, []netip.Addr{addr4(1, 11)}); err != nil {
			t.Fatal(err)
		}
		strays(0, addr4(1, 10))
		w.wantConnections([]netip.Addr{addr4(1, 10), addr6(1, 10), addr4(1, 12)}, 1, 0)
	})
}
