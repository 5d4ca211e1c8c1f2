package e2e

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dunnage/test/lab"
	"dunnage/test/load"
)

// lying runs f with an agent that lies in one way, and then starts an honest one.
func (d *driver) lying(lie string, f func()) {
	d.t.Helper()
	honest := d.agent.Env
	restart := func(env []string) {
		d.t.Helper()
		killAgent(d.host)
		d.agent.Env = env
		d.start()
	}
	restart(append(honest[:len(honest):len(honest)], "DUNNAGE_SABOTAGE="+lie))
	f()
	restart(honest)
}

// An invariant is only held by a check that notices when it is broken: for each
// there is an agent that breaks it.
func TestSaboteursAreNoticed(t *testing.T) {
	d := newDriver(t)
	foreign := d.foreign()
	shape := d.want["2 replicas, side false"]
	scale := func(n int) { d.must("scale", "-p", "keeper", fmt.Sprintf("web=%d", n)) }
	gone := func() { // a command is back before the old replicas are gone
		if _, err := d.converges(30*time.Second, d.now); err != nil {
			t.Fatal(err)
		}
	}
	upAndDown := func() { scale(3); scale(2); gone() }
	// more is the kind of resource that there is more of than without the lie.
	more := func(kind string) func() error {
		return func() error {
			err := d.lasting(5*time.Second, shape)
			if err == nil || !strings.Contains(err.Error(), kind) {
				return fmt.Errorf("what is left over: %v; want more %s", err, kind)
			}
			return nil
		}
	}
	red := func(what string, noticed bool) error {
		if !noticed {
			return errors.New(what)
		}
		return nil
	}
	var rep load.Report
	var most int
	var refused bool
	for _, s := range []struct {
		lie     string
		do      func()
		noticed func() error // nil = it was
		undo    []string     // on the host
	}{
		{"leave link", upAndDown, more("links"), []string{"ip link del left"}},
		{"skip start record remove", upAndDown, more("files of the run directory"),
			[]string{"find " + d.lab.Path("run/started") + " -name *-3.json -delete"}},
		{"skip conntrack delete", func() {
			for range 20 {
				_, _ = d.get(8080, "/") // the connections count, not the answers
			}
			d.must("deploy", "--force", "-f", d.file("web.yaml", webManifest("1", 2)))
			gone()
		}, more("conntrack entries to nobody"), []string{"conntrack -F"}},
		{"touch foreign rules", upAndDown, func() error { return red("foreign rules are as they were", d.foreign() != foreign) },
			[]string{"iptables -D INPUT -p udp --dport 9 -j ACCEPT", "ip6tables -D INPUT -p udp --dport 9 -j ACCEPT"}},
		{"second copy", func() {
			watch := d.watchCopies("/testapp")
			scale(3)
			time.Sleep(500 * time.Millisecond) // what mustn't happen gets its time
			most = watch()
			scale(2)
		}, func() error { return red("one live copy at most", most > 1) }, nil},
		{"forget audit", func() {
			for _, value := range []string{"1", "2", "3"} {
				refused = refused || d.set("noted", value).code != 0 // the store wants each entry after the one before
			}
		}, func() error {
			return red("the audit record is whole", refused || d.run(nil, "secret", "audit", "--verify").code != 0)
		}, nil},
		{"all are healthy", func() {
			traffic, err := d.lab.StartTraffic(filepath.Join(d.tools, "dunnage-load"), load.Config{Addr: d.lab.Host.String() + ":8080", Rate: 50})
			if err != nil {
				t.Fatal(err)
			}
			deaf := strings.Replace(webManifest("1", 2), "    environment:", "    command: [sleep, 1h]\n    environment:", 1)
			d.run(nil, "deploy", "-f", d.file("deaf.yaml", deaf)) // whatever comes of it
			if rep, err = traffic.Stop(); err != nil {
				t.Fatal(err)
			}
			d.deployWeb(truth{Release: "1", Replicas: 2})
		}, func() error { return red("no request failed", rep.Failed > 0) }, nil},
		{"slow start", func() {
			d.slow = 0
			up := d.scenarios()[2]
			d.round(up, []string{"store commit before"})
			d.bring(truth{Release: "1", Image: "root", Replicas: 2, Token: d.now.Token})
		}, func() error { return red("it recovered in time", d.slow > 2*time.Second) }, nil},
		// The last: who acts on a store that has forgotten something must be told to.
		{"skip store commit", func() { scale(3) }, func() error {
			acknowledged := d.now
			acknowledged.Replicas = 3
			_, err := d.converges(5*time.Second, acknowledged)
			return red("an acknowledged change was lost, and nobody notices", err != nil)
		}, nil},
	} {
		t.Run(s.lie, func(t *testing.T) {
			host := *d.host
			host.t = t
			d.host = &host
			d.lying(s.lie, s.do)
			if err := s.noticed(); err != nil {
				t.Error(err)
			}
			for _, line := range s.undo {
				_, _ = lab.Output(t.Context(), d.lab.OnHost(strings.Fields(line)...)...) // an agent may have
			}
		})
	}
	d.host.t = t
}
