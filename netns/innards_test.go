package netns

import (
	"testing"
	"time"

	"dunnage/internal/testenv"
	"dunnage/spec"
)

// TestInnards: what somebody takes away inside of a replica's namespace is found
// after some time, and made good by Attach; what a program there may have put in
// its place isn't ours.
func TestInnards(t *testing.T) {
	testenv.Host(t, func() {
		w := newWorld(t, NFT)
		one := member(network(1, false), 10)
		app := w.start("app", one)
		e := spec.Endpoint{Replica: "app", Hostname: "app", Addresses: []spec.EndpointAddress{one}}
		r := spec.Routing{Networks: []spec.NetworkAddressing{network(1, false)}, Published: published(8080, 80, app.backend(0))}
		w.apply(r)
		inside := "nsenter --net=" + w.net.Namespace("app") + " "
		later := func() {
			w.net.innards.mu.Lock()
			defer w.net.innards.mu.Unlock()
			for id, i := range w.net.innards.replicas {
				i.at = i.at.Add(-innardsEvery)
				w.net.innards.replicas[id] = i
			}
		}
		for damage, want := range map[string]string{
			"ip neigh flush nud permanent dev eth0": "namespace app: neighbour 169.254.1.1 of app gone or another",
			"ip addr flush dev eth0":                "namespace app: address 10.213.1.10 of app gone",
			"ip route del default":                  "namespace app: default route of app gone",
			"ip route replace default dev lo":       "",
			"sh -ec 'ip route del default; ip route add 0/1 dev lo; ip route add 128/1 dev lo'": "",
		} {
			later()
			w.wantDamage("before "+damage, r)
			testenv.Run(t, "sh", "-ec", inside+damage)
			w.wantDamage("at once after "+damage, r)
			later()
			if want == "" {
				w.wantDamage("after "+damage, r)
				testenv.Run(t, "sh", "-c", inside+"ip route flush root 0/0")
			} else {
				w.wantDamage("after "+damage, r, want)
			}
			if err := w.net.Attach(w.ctx, e); err != nil {
				t.Fatal(err)
			}
			w.wantDamage("after the repair of "+damage, r)
			w.answersSoon("after the repair of " + damage)
		}
		began := time.Now()
		const looks = 200
		for range looks {
			if missing, err := w.net.lookInside("app", 1500); missing != "" || err != nil {
				t.Fatal(missing, err)
			}
		}
		t.Logf("a look inside takes %s", time.Since(began)/looks)
		if err := w.net.Detach(w.ctx, "app"); err != nil || len(w.net.innards.replicas) > 0 {
			t.Errorf("left after Detach: %v, %v", w.net.innards.replicas, err)
		}
	})
}
