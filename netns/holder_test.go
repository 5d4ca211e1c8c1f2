package netns

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"dunnage/internal/testenv"
	"dunnage/spec"
)

func TestHolder(t *testing.T) {
	testenv.Host(t, func() {
		w := newWorld(t, Auto)
		for _, addr := range []string{"0.0.0.0:8001", "127.0.0.1:8002", "192.0.2.1:8003", "[::]:8004", "[::1]:8005"} {
			l, err := w.Host.Listen("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
		}
		p, err := w.Host.ListenPacket("udp", "0.0.0.0:8001")
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		elsewhere, err := w.Client.Listen("tcp", ":8009")
		if err != nil {
			t.Fatal(err)
		}
		defer elsewhere.Close()
		for _, c := range []struct {
			ip    string
			port  uint16
			proto spec.Protocol
			held  bool
		}{
			{"", 8001, spec.TCP, true}, {"127.0.0.1", 8001, spec.TCP, true}, {"", 8001, spec.UDP, true}, {"", 8002, spec.UDP, false},
			{"", 8002, spec.TCP, true}, {"127.0.0.1", 8002, spec.TCP, true}, {"127.0.0.2", 8002, spec.TCP, false},
			{"192.0.2.1", 8003, spec.TCP, true}, {"127.0.0.1", 8003, spec.TCP, false}, {"0.0.0.0", 8003, spec.TCP, true},
			{"", 8004, spec.TCP, true}, {"192.0.2.1", 8004, spec.TCP, true}, {"::1", 8005, spec.TCP, true}, {"2001:db8:2::1", 8005, spec.TCP, false},
			{"", 8006, spec.TCP, false}, {"", 8009, spec.TCP, false},
		} {
			var ip netip.Addr
			if c.ip != "" {
				ip = netip.MustParseAddr(c.ip)
			}
			got, err := w.net.Holder(w.ctx, ip, c.port, c.proto)
			if err != nil || (got != "") != c.held {
				t.Errorf("%s port %d/%s is held by %q (%v), want held: %v", c.ip, c.port, c.proto, got, err, c.held)
			}
			if c.held && !strings.HasSuffix(got, fmt.Sprintf("(pid %d)", os.Getpid())) {
				t.Errorf("the holder is called %q, want this process, %d", got, os.Getpid())
			}
		}
	})
}
