package netns

import (
	"testing"

	"dunnage/internal/testenv"
	"dunnage/netns/rules"
	"dunnage/spec"
)

// TestUplinkForwards: a link of the host that doesn't forward cuts clients off.
// It is named, and left to its owner.
func TestUplinkForwards(t *testing.T) {
	testenv.Host(t, func() {
		w := newWorld(t, NFT)
		app := w.start("app", member(network(1, false), 10))
		r := spec.Routing{Networks: []spec.NetworkAddressing{network(1, false)}, Published: published(8080, 80, app.backend(0))}
		w.apply(r)
		if err := w.net.PrepareVisits(w.ctx); err != nil {
			t.Fatal(err)
		}
		if all := w.problems(); len(all) > 0 {
			t.Errorf("at first, told are %q", all)
		}
		testenv.Run(t, "sysctl", "-qw", "net.ipv4.conf.lan0.forwarding=0", "net.ipv4.conf.lan1.forwarding=0", "net.ipv4.conf."+rules.VisitorLink+".forwarding=0")
		w.wantProblem("an uplink that doesn't forward", "by its link lan0, so clients behind it reach no replica: net.ipv4.conf.lan0.forwarding is 0; `sysctl -w net.ipv4.conf.lan0.forwarding=1`")
		if off, err := w.net.NotForwarding(); err != nil || len(off) != 2 || off[0] != "net.ipv4.conf.lan0.forwarding" {
			t.Errorf("not forwarding are %q, %v", off, err)
		}
		w.apply(r)
		wantSysctl(t, w.Host, "net/ipv4/conf/lan0/forwarding", "0")

		// The visitor comes by a link of ours.
		if err := w.net.PrepareVisits(w.ctx); err != nil {
			t.Fatal(err)
		}
		wantSysctl(t, w.Host, "net/ipv4/conf/"+rules.VisitorLink+"/forwarding", "1")
		testenv.Run(t, "sysctl", "-qw", "net.ipv4.conf.lan0.forwarding=1")
		if all := w.problems(); len(all) > 0 {
			t.Errorf("it forwards again, and told are %q", all)
		}
	})
}
