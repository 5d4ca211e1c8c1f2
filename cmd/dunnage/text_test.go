package main

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"dunnage/spec"
)

func TestAge(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 0: "0s", 119 * time.Second: "119s", 3 * time.Minute: "3m", 119 * time.Minute: "119m",
		2 * time.Hour: "2h", 47 * time.Hour: "47h", 49 * time.Hour: "2d", 1000 * time.Hour: "41d",
	} {
		if got := age(now, now.Add(-d)); got != want {
			t.Errorf("%s: %s, want %s", d, got, want)
		}
	}
	if got := age(now, time.Time{}); got != "-" {
		t.Errorf("never: %s", got)
	}
}

func TestPorts(t *testing.T) {
	got := ports([]spec.Port{
		{Published: 8080, Target: 80, Protocol: spec.TCP},
		{HostIP: netip.MustParseAddr("::1"), Published: 53, Target: 53, Protocol: spec.UDP},
		{Target: 80, Protocol: spec.TCP},
	})
	if want := "0.0.0.0:8080->80/tcp, [::1]:53->53/udp, 0.0.0.0:?->80/tcp"; got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

func TestShortPorts(t *testing.T) {
	got := shortPorts([]spec.Port{
		{Published: 8080, Target: 80, Protocol: spec.TCP},
		{HostIP: netip.MustParseAddr("127.0.0.1"), Published: 53, Target: 53, Protocol: spec.UDP},
	})
	if want := "8080->80, 127.0.0.1:53->53/udp"; got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

func TestPrintable(t *testing.T) {
	if got := printable("a\x1b[31mb\nc\rd\x00\u202e\xff"); got != "a?[31mb c d???" {
		t.Errorf("%q", got)
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 5 << 20: "5.0 MiB", 3 << 40: "3.0 TiB", 5 << 50: "5120.0 TiB"} {
		if got := size(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

func TestLogWriterJoinsParts(t *testing.T) {
	var out bytes.Buffer
	w := &logWriter{p: &program{stdout: &out}, prefix: true}
	for _, l := range []spec.LogLine{
		{Service: "a", Replica: "p-a-00000000-1", Partial: true, Text: []byte("one ")},
		{Service: "a", Replica: "p-a-00000000-1", Text: []byte("line")},
		{Service: "a", Replica: "p-a-00000000-1", Partial: true, Text: []byte("cut ")},
		{Service: "b", Replica: "p-b-00000000-2", Text: []byte("between")},
		{Service: "a", Replica: "p-a-00000000-1", Text: []byte("short")},
	} {
		if err := w.line(l); err != nil {
			t.Fatal(err)
		}
	}
	want := "a-1 | one line\na-1 | cut \nb-2 | between\na-1 | short\n"
	if out.String() != want {
		t.Errorf("got %q\nwant %q", out.String(), want)
	}
}

func TestColourOnlyOnATerminal(t *testing.T) {
	for _, c := range []struct {
		p    program
		want string
	}{
		{program{}, "x"},
		{program{terminal: terminal{stdout: true}}, "\x1b[31mx\x1b[0m"},
		{program{terminal: terminal{stdout: true}, quietColour: true}, "x"},
	} {
		if got := c.p.paintOut(red, "x"); got != c.want {
			t.Errorf("%+v: %q", c.p.terminal, got)
		}
	}
}

// TestWaitingFitsTheTerminal: it is broken there and never cut, since what to do
// next stands at its end. A file gets it as one line.
func TestWaitingFitsTheTerminal(t *testing.T) {
	st := spec.Status{Projects: []spec.ProjectStatus{{Name: "shop", Services: []spec.ServiceStatus{{Name: "web", Waiting: "for db, which isn't ready"}}}}}
	for isTerminal, want := range map[bool]string{
		true:  "web of shop: for db, which\n    isn't ready\n",
		false: "web of shop: for db, which isn't ready\n",
	} {
		var out bytes.Buffer
		p := program{stderr: &out, terminal: terminal{stderr: isTerminal, width: 30}}
		if p.tellProblems(st, "shop", nil); out.String() != want {
			t.Errorf("%q, want %q", out.String(), want)
		}
	}
}

// What serves while a rollout is paused is named: it is no outage.
func TestPausedNamesWhoServes(t *testing.T) {
	web := spec.ServiceStatus{Name: "web", Generation: "new", Wanted: 2, Replicas: []spec.ReplicaStatus{
		{Generation: "new", Release: 2, State: spec.StateUnhealthy}, {Generation: "old", Release: 1, State: spec.StateReady},
	}}
	says := func(what string, web spec.ServiceStatus, serves string) {
		t.Helper()
		want := "shop: paused (on request); web: " + serves + "; `dunnage rollout resume -p shop` goes on, `dunnage rollback -p shop` goes back"
		if got := standstills(spec.ProjectStatus{Name: "shop", Paused: "on request", Services: []spec.ServiceStatus{web}}); len(got) != 1 || got[0] != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	says("the old alone", web, "release 1 serves meanwhile, with 1 ready")
	up := func(generation string, release int, share float64) spec.ReplicaStatus {
		return spec.ReplicaStatus{Generation: generation, Release: release, State: spec.StateReady, Routed: true, Share: share}
	}
	web.Replicas = []spec.ReplicaStatus{up("new", 2, 0.5), up("old", 1, 0.5), {Generation: "new", Release: 2, State: spec.StateReady}}
	says("after the first batch", web, "release 1 serves meanwhile, with 1 ready (50 % of new connections), and release 2 with 1 (50 %)")
	web.Trial, web.Replicas = 1, []spec.ReplicaStatus{up("new", 2, 0.1), up("old", 1, 0.45), up("old", 1, 0.45)}
	says("a canary", web, "canary: 1 of 2, release 1 serves meanwhile, with 2 ready (90 % of new connections), and release 2 with 1 (10 %)")
}

// TestPausedIsSaidOnce: of the project, with the way on.
func TestPausedIsSaidOnce(t *testing.T) {
	for _, waiting := range []string{"", "paused: on request"} {
		st := spec.Status{Projects: []spec.ProjectStatus{{Name: "shop", Paused: "on request", Services: []spec.ServiceStatus{{Name: "web", Waiting: waiting}}}}}
		var out bytes.Buffer
		p := program{stderr: &out}
		if p.tellProblems(st, "shop", nil); out.String() != "shop: paused (on request); `dunnage rollout resume -p shop` goes on, `dunnage rollback -p shop` goes back\n" {
			t.Errorf("waiting %q: %q", waiting, out.String())
		}
	}
}

// TestProblemsOnce: what keeps a service waiting is often what is wrong with a
// replica, which the table shows on a terminal.
func TestProblemsOnce(t *testing.T) {
	replica := spec.ReplicaStatus{Project: "shop", Service: "db", Replica: "shop-db-00000000-1", State: spec.StateUnhealthy, Detail: "no answer"}
	for _, c := range []struct {
		name, waiting string
		onTerminal    bool
		want          string
	}{
		{"in the table", "0 of 1 ready; shop-db-00000000-1: no answer", true, ""},
		{"in the waiting", "0 of 1 ready; shop-db-00000000-1: no answer", false, "db of shop: 0 of 1 ready; shop-db-00000000-1: no answer"},
		{"two things", "for cache, which isn't ready", true, "db of shop: for cache, which isn't ready"},
		{"two things", "for cache, which isn't ready", false, "db of shop: for cache, which isn't ready\nshop-db-00000000-1: no answer"},
		{"the replica alone", "", false, "shop-db-00000000-1: no answer"},
	} {
		p := program{terminal: terminal{stdout: c.onTerminal}}
		got := strings.Join(p.problems("shop", spec.ServiceStatus{Name: "db", Waiting: c.waiting}, []spec.ReplicaStatus{replica}), "\n")
		if got != c.want {
			t.Errorf("%s, terminal %v: %q, want %q", c.name, c.onTerminal, got, c.want)
		}
	}
}

// TestEventText: a name or a word that has been said isn't said again.
func TestEventText(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	const replica = "shop-web-0a1b2c3d-1"
	for _, c := range []struct {
		event spec.Event
		want  string
	}{
		{spec.Event{Kind: spec.EventCreated, Message: replica + " created"}, "created   " + replica},
		{spec.Event{Kind: spec.EventReady, Message: replica + " is ready"}, "ready     " + replica},
		{spec.Event{Kind: spec.EventUnhealthy, Message: replica + " is unhealthy: no answer"}, "unhealthy " + replica + ": no answer"},
		{spec.Event{Kind: spec.EventProblem, Message: replica + ": its process is gone"}, "problem   " + replica + ": its process is gone"},
		{spec.Event{Kind: spec.EventExited, Message: replica + " exited with code 1"}, "exited    " + replica + ": exited with code 1"},
	} {
		c.event.At, c.event.Project, c.event.Service, c.event.Replica = at, "shop", "web", replica
		if got, want := eventText(c.event), "2026-01-02T03:04:05Z "+c.want; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	for _, c := range []struct {
		event spec.Event
		want  string
	}{
		{spec.Event{Kind: spec.EventRouted, Project: "shop", Service: "web", Message: "connections go to 2 replicas"}, "routed    shop web: connections go to 2 replicas"},
		{spec.Event{Kind: spec.EventRelease, Project: "shop", Message: "release 3: deploy"}, "release   shop: release 3: deploy"},
		{spec.Event{Kind: spec.EventPull, Project: "shop", Pull: &spec.PullProgress{Image: "a:1", State: "ready"}}, "pull      shop: a:1 ready"},
		{spec.Event{Kind: spec.EventPull, Project: "shop", Pull: &spec.PullProgress{Image: "a:1", State: "resolving", Waiting: "looks up the name r.example"}}, "pull      shop: a:1 resolving: looks up the name r.example"},
		{spec.Event{Kind: spec.EventProblem, Message: "containerd: no answer"}, "problem   containerd: no answer"},
	} {
		c.event.At = at
		if got, want := eventText(c.event), "2026-01-02T03:04:05Z "+c.want; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// What a failed check printed stands between the cause and the replica's own
// last lines, and moves no cursor.
func TestWhyShowsWhatTheCheckPrinted(t *testing.T) {
	op := spec.Operation{
		Cause: "shop-web-1 is unhealthy: accept: /check exited with 2: usage", Replica: "shop-web-1",
		Output: []string{"no such table\x1b[2J", "usage"}, Log: []string{"ready"},
	}
	want := op.Cause + "\n  the check that failed printed last:\n    no such table?[2J\n    usage\n  shop-web-1 wrote last:\n    ready"
	if got := why(op); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}
