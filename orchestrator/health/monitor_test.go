package health

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"dunnage/spec"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// script answers probes as it is told to.
type script struct {
	mu  sync.Mutex
	err map[string]error // by replica
}

func (s *script) set(replica string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err[replica] = err
}

func (s *script) Probe(ctx context.Context, replica string, _ netip.Addr, p spec.Probe) error {
	if p.Path == "/hang" {
		<-ctx.Done()
		return ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err[replica]
}

type watched struct {
	*Monitor
	changed chan struct{}
}

func monitor(t *testing.T, p Prober) watched {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w := watched{changed: make(chan struct{}, 100)}
	w.Monitor = NewMonitor(ctx, p, func() { w.changed <- struct{}{} })
	t.Cleanup(func() { cancel(); w.Wait() })
	return w
}

// await waits, event by event, until the replica's health is want.
func (w watched) await(t *testing.T, replica string, started time.Time, want spec.Health) string {
	t.Helper()
	limit := time.After(20 * time.Second)
	for {
		if h, detail := w.Health(replica, started); h == want {
			return detail
		}
		select {
		case <-w.changed:
		case <-limit:
			h, detail := w.Health(replica, started)
			t.Fatalf("%s is %q (%s), want %q", replica, h, detail, want)
		}
	}
}

func target(replica string, started time.Time, p spec.Probe) spec.ProbeTarget {
	p.Interval, p.Timeout = spec.Duration(100*time.Millisecond), spec.Duration(200*time.Millisecond)
	p.Retries = max(p.Retries, 1)
	return spec.ProbeTarget{Replica: replica, StartedAt: started, Probes: []spec.Probe{p}}
}

func TestMonitorFollowsTheProbes(t *testing.T) {
	s := &script{err: map[string]error{"a": errors.New("not yet")}}
	m := monitor(t, s)
	started := time.Now()
	patient := target("a", started, spec.Probe{StartPeriod: spec.Duration(time.Hour)})
	m.Watch([]spec.ProbeTarget{patient})
	if h, _ := m.Health("a", started); h != spec.HealthStarting {
		t.Fatalf("before a success: %q", h)
	}
	s.set("a", nil)
	m.await(t, "a", started, spec.HealthHealthy)
	s.set("a", errors.New("gone away"))
	if detail := m.await(t, "a", started, spec.HealthUnhealthy); detail != "gone away" {
		t.Errorf("detail %q", detail)
	}
}

func TestMonitorForgetsTheProcessBefore(t *testing.T) {
	s := &script{err: map[string]error{}}
	m := monitor(t, s)
	first, second := time.Now(), time.Now().Add(time.Second)
	m.Watch([]spec.ProbeTarget{target("a", first, spec.Probe{})})
	m.await(t, "a", first, spec.HealthHealthy)
	s.set("a", errors.New("starting"))
	m.Watch([]spec.ProbeTarget{target("a", second, spec.Probe{StartPeriod: spec.Duration(time.Hour)})})
	if h, _ := m.Health("a", second); h != spec.HealthStarting {
		t.Fatalf("a new process inherits %q", h)
	}
	m.Watch(nil)
	if h, _ := m.Health("a", second); h != spec.HealthStarting {
		t.Fatalf("an unwatched process is %q", h)
	}
}

func TestMonitorAdoptedIsUnknownUntilLookedAt(t *testing.T) {
	m := monitor(t, &script{err: map[string]error{}})
	started := time.Now()
	adopted := target("a", started, spec.Probe{Path: "/hang"})
	adopted.Adopted = true
	adopted.Probes[0].Timeout = spec.Duration(time.Hour)
	m.Watch([]spec.ProbeTarget{adopted})
	if h, _ := m.Health("a", started); h != spec.HealthUnknown {
		t.Fatalf("adopted: %q", h)
	}
}

func TestMonitorEveryProbeMustPass(t *testing.T) {
	m := monitor(t, &script{err: map[string]error{}})
	started := time.Now()
	two := target("a", started, spec.Probe{})
	two.Probes = append(two.Probes, spec.Probe{Kind: spec.ProbeHTTP, Path: "/hang", Interval: spec.Duration(100 * time.Millisecond), Timeout: spec.Duration(50 * time.Millisecond), Retries: 1})
	m.Watch([]spec.ProbeTarget{two})
	if detail := m.await(t, "a", started, spec.HealthUnhealthy); !strings.Contains(detail, "no answer within 50ms") {
		t.Errorf("detail %q", detail)
	}
}

func TestNetworkProbes(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/bad":
			w.WriteHeader(http.StatusServiceUnavailable)
		case "/elsewhere":
			http.Redirect(w, r, "http://192.0.2.1/", http.StatusFound)
		}
	}))
	t.Cleanup(srv.Close)
	at := netip.MustParseAddrPort(srv.Listener.Addr().String())
	closed := closedPort(t)
	prober := Network{Exec: func(_ context.Context, r spec.ExecRequest, out io.Writer) (int, error) {
		_, _ = io.WriteString(out, "first\nwhat went wrong\n")
		return len(r.Command) - 1, nil
	}}
	for name, tc := range map[string]struct {
		probe spec.Probe
		want  string // "" = success
	}{
		"tcp":                 {spec.Probe{Kind: spec.ProbeTCP, Port: at.Port()}, ""},
		"tcp, nobody listens": {spec.Probe{Kind: spec.ProbeTCP, Port: closed}, "nothing listens on port"},
		"http":                {spec.Probe{Kind: spec.ProbeHTTP, Port: at.Port(), Path: "/"}, ""},
		"http, redirect":      {spec.Probe{Kind: spec.ProbeHTTP, Port: at.Port(), Path: "/elsewhere"}, ""},
		"http, 503":           {spec.Probe{Kind: spec.ProbeHTTP, Port: at.Port(), Path: "/bad"}, "GET /bad answered 503"},
		"http, nobody":        {spec.Probe{Kind: spec.ProbeHTTP, Port: closed, Path: "/"}, "nothing listens on port"},
		"exec":                {spec.Probe{Kind: spec.ProbeExec, Command: []string{"check"}}, ""},
		"exec, exit code":     {spec.Probe{Kind: spec.ProbeExec, Command: []string{"check", "x"}}, "healthcheck: check exited with 1: what went wrong"},
		"exec, by a shell":    {spec.Probe{Kind: spec.ProbeExec, Command: []string{"/bin/sh", "-c", "test -f /x ||\n  exit 7"}}, "healthcheck: `test -f /x || exit 7` exited with 2: what went wrong"},
		"exec, a long script": {spec.Probe{Kind: spec.ProbeExec, Command: []string{"/bin/sh", "-c", strings.Repeat("a", 100)}}, "healthcheck: `" + strings.Repeat("a", 59) + "…` exited with 2"},
		"the image's own":     {spec.Probe{Kind: spec.ProbeExec, Command: []string{"check", "x"}, FromImage: true}, "the image's HEALTHCHECK: check exited with 1: what went wrong"},
		"accept":              {spec.Probe{Kind: spec.ProbeAccept, Command: []string{"check", "x"}}, "accept: check exited with 1: what went wrong"},
	} {
		t.Run(name, func(t *testing.T) {
			err := prober.Probe(t.Context(), "r", at.Addr(), tc.probe)
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want %q", err, tc.want)
			}
		})
	}
}

// A check that says nothing leaves no colon behind.
func TestSilentCheck(t *testing.T) {
	silent := Network{Exec: func(context.Context, spec.ExecRequest, io.Writer) (int, error) { return 1, nil }}
	err := silent.Probe(t.Context(), "r", netip.Addr{}, spec.Probe{Kind: spec.ProbeExec, Command: []string{"check"}})
	if err == nil || err.Error() != "healthcheck: check exited with 1" {
		t.Errorf("got %v", err)
	}
}

func closedPort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return netip.MustParseAddrPort(l.Addr().String()).Port()
}

func TestLimitedKeepsTheEnd(t *testing.T) {
	var l limited
	for i := range 10 {
		line := fmt.Appendf(make([]byte, maxOutput), "\nline %d\n", i)
		if n, err := l.Write(line); n != len(line) || err != nil {
			t.Fatalf("Write: %d, %v", n, err)
		}
	}
	if len(l.kept) != maxOutput || l.line() != "line 9" {
		t.Fatalf("kept %d bytes, line %q", len(l.kept), l.line())
	}
}

// A line of JSON or of a page isn't shown in full.
func TestLimitedCutsALongLine(t *testing.T) {
	for _, n := range []int{maxLine, maxLine + 1, 10 * maxLine} {
		var l limited
		if _, err := l.Write([]byte("before\n" + strings.Repeat("é", n) + "\n")); err != nil {
			t.Fatal(err)
		}
		want := strings.Repeat("é", n)
		if n > maxLine {
			want = strings.Repeat("é", maxLine-1) + "…"
		}
		if got := l.line(); got != want {
			t.Errorf("%d characters: %d bytes, %q", n, len(got), got)
		}
	}
}

// scripted answers by the kind of probe, and counts.
type scripted struct {
	mu      sync.Mutex
	answers map[spec.ProbeKind][]error // one after the other; the last stays
	asked   map[spec.ProbeKind]int
}

func (s *scripted) Probe(_ context.Context, _ string, _ netip.Addr, p spec.Probe) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked == nil {
		s.asked = map[spec.ProbeKind]int{}
	}
	i := min(s.asked[p.Kind], len(s.answers[p.Kind])-1)
	s.asked[p.Kind]++
	if i < 0 {
		return nil
	}
	return s.answers[p.Kind][i]
}

func (s *scripted) times(k spec.ProbeKind) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[k]
}

// accepting is a target with a probe beside its accept probe.
func accepting(replica string, started time.Time) spec.ProbeTarget {
	x := target(replica, started, spec.Probe{Kind: spec.ProbeTCP})
	x.Probes = append(x.Probes, spec.Probe{Kind: spec.ProbeAccept, Timeout: spec.Duration(10 * time.Second)})
	return x
}

// The accept probe runs once, after the others, and before that nobody is
// healthy.
func TestMonitorAccepts(t *testing.T) {
	refused := errors.New("accept: /migrate exited with 3: no table")
	for name, tc := range map[string]struct {
		answers  map[spec.ProbeKind][]error
		accepted bool
		want     spec.Health
		detail   string
		asked    int
	}{
		"passes":                {nil, false, spec.HealthHealthy, "", 1},
		"after the others":      {map[spec.ProbeKind][]error{spec.ProbeTCP: {errDown, errDown, nil}}, false, spec.HealthHealthy, "", 1},
		"its failure is final":  {map[spec.ProbeKind][]error{spec.ProbeAccept: {refused, nil}}, false, spec.HealthUnhealthy, refused.Error(), 1},
		"not run is not failed": {map[spec.ProbeKind][]error{spec.ProbeAccept: {spec.ErrUnavailable, nil}}, false, spec.HealthHealthy, "", 2},
		"accepted earlier":      {map[spec.ProbeKind][]error{spec.ProbeAccept: {refused}}, true, spec.HealthHealthy, "", 0},
		"others never pass":     {map[spec.ProbeKind][]error{spec.ProbeTCP: {errDown}}, false, spec.HealthUnhealthy, "down", 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := &scripted{answers: tc.answers}
			m := monitor(t, s)
			started := time.Now()
			x := accepting("a", started)
			x.Accepted = tc.accepted
			m.Watch([]spec.ProbeTarget{x})
			if detail := m.await(t, "a", started, tc.want); detail != tc.detail {
				t.Errorf("detail %q", detail)
			}
			rounds := s.times(spec.ProbeTCP)
			for deadline := time.Now().Add(20 * time.Second); s.times(spec.ProbeTCP) < rounds+2 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			}
			if h, _ := m.Health("a", started); h != tc.want || s.times(spec.ProbeAccept) != tc.asked {
				t.Errorf("two rounds later: %q, asked %d times, want %d", h, s.times(spec.ProbeAccept), tc.asked)
			}
		})
	}
}

// What has failed before it was ever healthy is asked as after a start, and its
// accept command is run once more; what passed, or still may, goes on as it is.
func TestMonitorAgain(t *testing.T) {
	refused := errors.New("accept: /migrate exited with 3: no table")
	for name, tc := range map[string]struct {
		answers  map[spec.ProbeKind][]error
		adopted  bool
		first    spec.Health
		want     spec.Health
		accepted int // how often accept was asked in the end
	}{
		"accepted now":     {map[spec.ProbeKind][]error{spec.ProbeAccept: {refused, nil}}, false, spec.HealthUnhealthy, spec.HealthHealthy, 2},
		"of another agent": {map[spec.ProbeKind][]error{spec.ProbeAccept: {refused, nil}}, true, spec.HealthUnhealthy, spec.HealthHealthy, 2},
		"passed already":   {nil, false, spec.HealthHealthy, spec.HealthHealthy, 1},
	} {
		t.Run(name, func(t *testing.T) {
			s := &scripted{answers: tc.answers}
			m := monitor(t, s)
			started := time.Now()
			x := accepting("a", started)
			x.Adopted = tc.adopted
			m.Watch([]spec.ProbeTarget{x})
			m.await(t, "a", started, tc.first)
			m.Again([]string{"a", "unknown"})
			m.Watch([]spec.ProbeTarget{x})
			m.await(t, "a", started, tc.want)
			if n := s.times(spec.ProbeAccept); n != tc.accepted {
				t.Errorf("asked %d times, want %d", n, tc.accepted)
			}
		})
	}
}

// Of a command that fails or hangs, the last lines are there to be shown; the
// failure itself is one line.
func TestMonitorKeepsTheOutput(t *testing.T) {
	for name, tc := range map[string]struct {
		hangs  bool
		detail string
	}{
		"fails": {false, "accept: /check exited with 2: line 12"},
		"hangs": {true, "accept: no answer within 100ms"},
	} {
		t.Run(name, func(t *testing.T) {
			m := monitor(t, Network{Exec: func(ctx context.Context, _ spec.ExecRequest, out io.Writer) (int, error) {
				for i := range 12 {
					fmt.Fprintf(out, "line %d\r\n", i+1)
				}
				if tc.hangs {
					<-ctx.Done()
					return 0, ctx.Err()
				}
				return 2, nil
			}})
			started := time.Now()
			m.Watch([]spec.ProbeTarget{{Replica: "a", StartedAt: started, Probes: []spec.Probe{
				{Kind: spec.ProbeAccept, Command: []string{"/check"}, Timeout: spec.Duration(100 * time.Millisecond)},
			}}})
			if detail := m.await(t, "a", started, spec.HealthUnhealthy); detail != tc.detail {
				t.Errorf("detail %q", detail)
			}
			if out := m.Output("a"); len(out) != 10 || out[0] != "line 3" || out[9] != "line 12" {
				t.Errorf("%q", out)
			}
			if m.Output("b") != nil {
				t.Error("another replica has this output")
			}
		})
	}
}

// The time to the first success begins anew.
func TestMonitorAgainIsPatientAnew(t *testing.T) {
	m := monitor(t, &script{err: map[string]error{"a": errDown}})
	started := time.Now().Add(-time.Hour)
	x := target("a", started, spec.Probe{Kind: spec.ProbeTCP, StartPeriod: spec.Duration(10 * time.Minute)})
	m.Watch([]spec.ProbeTarget{x})
	m.await(t, "a", started, spec.HealthUnhealthy)
	checks := len(m.Checks("a", started))
	m.Again([]string{"a"})
	if h, _ := m.Health("a", started); h != spec.HealthStarting || len(m.Checks("a", started)) < checks {
		t.Errorf("%q, and %d checks are kept", h, len(m.Checks("a", started)))
	}
	for len(m.Checks("a", started)) < keptChecks {
		time.Sleep(time.Millisecond)
	}
	if h, _ := m.Health("a", started); h != spec.HealthStarting {
		t.Errorf("after another failure: %q", h)
	}
}

// A hanging accept probe ends with its own time, and fails.
func TestMonitorAcceptHangs(t *testing.T) {
	m := monitor(t, &script{err: map[string]error{}})
	started := time.Now()
	x := target("a", started, spec.Probe{Kind: spec.ProbeTCP})
	x.Probes = append(x.Probes, spec.Probe{Kind: spec.ProbeAccept, Path: "/hang", Timeout: spec.Duration(50 * time.Millisecond)})
	m.Watch([]spec.ProbeTarget{x})
	if detail := m.await(t, "a", started, spec.HealthUnhealthy); detail != "accept: no answer within 50ms" {
		t.Errorf("detail %q", detail)
	}
}

func TestMonitorKeepsTheLastChecks(t *testing.T) {
	s := &scripted{answers: map[spec.ProbeKind][]error{spec.ProbeTCP: {errDown, errDown, errDown, errDown, errDown, errDown, nil}}}
	m := monitor(t, s)
	started := time.Now()
	m.Watch([]spec.ProbeTarget{target("a", started, spec.Probe{Kind: spec.ProbeTCP, StartPeriod: spec.Duration(time.Hour)})})
	m.await(t, "a", started, spec.HealthHealthy)
	checks := m.Checks("a", started)
	if len(checks) != 5 {
		t.Fatalf("%d checks", len(checks))
	}
	for i, c := range checks {
		if c.Probe != spec.ProbeTCP || c.OK != (c.Detail == "") || c.At.Before(started) || i > 0 && c.At.Before(checks[i-1].At) {
			t.Errorf("check %d: %+v", i, c)
		}
	}
	if m.Checks("a", started.Add(time.Second)) != nil || m.Checks("b", started) != nil {
		t.Error("another process has these checks")
	}
}

// slow takes its time, and sees whether it is asked twice at once.
type slow struct {
	takes    time.Duration
	mu       sync.Mutex
	busy     bool
	doubled  bool
	ended    time.Time
	shortest time.Duration // from an end to the next start
	asked    int
}

func (s *slow) Probe(context.Context, string, netip.Addr, spec.Probe) error {
	s.mu.Lock()
	s.doubled = s.doubled || s.busy
	if gap := time.Since(s.ended); s.asked > 0 && (s.shortest == 0 || gap < s.shortest) {
		s.shortest = gap
	}
	s.busy = true
	s.mu.Unlock()
	time.Sleep(s.takes)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy, s.ended = false, time.Now()
	s.asked++
	return nil
}

// A check that takes longer than the interval neither overlaps with the next
// nor takes its pause from it.
func TestMonitorDoesNotPileUp(t *testing.T) {
	s := &slow{takes: 150 * time.Millisecond}
	m := monitor(t, s)
	m.Watch([]spec.ProbeTarget{target("a", time.Now(), spec.Probe{Kind: spec.ProbeTCP})})
	for {
		s.mu.Lock()
		asked, doubled, shortest := s.asked, s.doubled, s.shortest
		s.mu.Unlock()
		if asked < 4 {
			time.Sleep(5 * time.Millisecond)
			continue
		}
		if doubled || shortest < 100*time.Millisecond {
			t.Errorf("overlapping %t, shortest pause %s, want 100ms", doubled, shortest)
		}
		return
	}
}

// TestInStep: waits end together, near their time; short ones at their time.
func TestInStep(t *testing.T) {
	now := time.Date(2026, 11, 22, 9, 0, 0, 123e6, time.UTC)
	for wait, want := range map[time.Duration]time.Duration{
		200 * time.Millisecond:  200 * time.Millisecond,
		time.Second:             877 * time.Millisecond,
		5 * time.Second:         4877 * time.Millisecond,
		5120 * time.Millisecond: 5127 * time.Millisecond,
	} {
		if got := inStep(now, wait); got != want {
			t.Errorf("a wait of %s from %s on is %s, want %s", wait, now.Format(time.StampMilli), got, want)
		}
	}
}

// Who counts as healthy and doesn't answer when it is asked to isn't any more, at
// once; who takes long by habit has longer.
func TestAssure(t *testing.T) {
	s := &script{err: map[string]error{}}
	w := monitor(t, s)
	started := time.Now()
	never := spec.Probe{Kind: spec.ProbeTCP, Port: 80, Interval: spec.Duration(time.Hour), Timeout: spec.Duration(time.Hour), Retries: 3}
	var all []spec.ProbeTarget
	for _, id := range []string{"well", "refuses", "unasked"} {
		all = append(all, spec.ProbeTarget{Replica: id, StartedAt: started, Probes: []spec.Probe{never}})
	}
	w.Watch(all)
	for _, x := range all {
		w.await(t, x.Replica, started, spec.HealthHealthy)
	}
	s.set("refuses", errors.New("connection refused"))
	s.set("unasked", spec.ErrUnavailable)
	if got := w.Assure(t.Context(), []string{"well", "refuses", "unasked", "unknown"}); len(got) != 1 || got["refuses"] != "connection refused" {
		t.Errorf("%v", got)
	}
	for id, want := range map[string]spec.Health{"well": spec.HealthHealthy, "refuses": spec.HealthUnhealthy, "unasked": spec.HealthHealthy} {
		if got, _ := w.Health(id, started); got != want {
			t.Errorf("%s is %s", id, got)
		}
	}
	slow := watch{checks: []spec.Check{
		{Probe: spec.ProbeTCP, Took: spec.Duration(time.Second), OK: true}, {Probe: spec.ProbeTCP, Took: spec.Duration(time.Minute)},
	}}
	if got := slow.usual(spec.ProbeTCP); got != 3*time.Second {
		t.Errorf("asked for %s", got)
	}
	if got := slow.usual(spec.ProbeExec); got != assureWithin {
		t.Errorf("of another kind, asked for %s", got)
	}
}
