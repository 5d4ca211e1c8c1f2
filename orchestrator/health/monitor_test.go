package health

import (
	"context"
	"errors"
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
		"exec, exit code":     {spec.Probe{Kind: spec.ProbeExec, Command: []string{"check", "x"}}, "check exited with 1: what went wrong"},
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
	if err == nil || err.Error() != "exec probe: check exited with 1" {
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

func TestLimitedKeepsWhatFits(t *testing.T) {
	var l limited
	for range 10 {
		if n, err := l.Write(make([]byte, maxOutput)); n != maxOutput || err != nil {
			t.Fatalf("Write: %d, %v", n, err)
		}
	}
	if l.buf.Len() != maxOutput {
		t.Fatalf("kept %d bytes", l.buf.Len())
	}
}
