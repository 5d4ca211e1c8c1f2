package visit

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"dunnage/spec"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// dialer is the host's, and counts. Addresses of 192.0.2.0/24 never answer.
type dialer struct {
	mu           sync.Mutex
	flying, most int
	asked        int
}

func (d *dialer) Dial(ctx context.Context, _ spec.Vantage, to netip.AddrPort) (net.Conn, error) {
	d.mu.Lock()
	d.asked++
	d.flying++
	d.most = max(d.most, d.flying)
	d.mu.Unlock()
	defer func() { d.mu.Lock(); d.flying--; d.mu.Unlock() }()
	if netip.MustParsePrefix("192.0.2.0/24").Contains(to.Addr()) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	var n net.Dialer
	return n.DialContext(ctx, "tcp", to.String())
}

// begin returns a visitor, and a function that waits until what it found fits.
func begin(t *testing.T, d Dialer) (*Visitor, func(what string, fits func([]spec.Reach) bool)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	changed := make(chan struct{}, 1000)
	v := New(ctx, d, func() { changed <- struct{}{} })
	t.Cleanup(func() { cancel(); v.Wait() })
	return v, func(what string, fits func([]spec.Reach) bool) {
		t.Helper()
		limit := time.After(30 * time.Second)
		for !fits(v.Reach()) {
			select {
			case <-changed:
			case <-limit:
				t.Fatalf("not %s: %+v", what, v.Reach())
			}
		}
	}
}

func all(s spec.ReachState) func([]spec.Reach) bool {
	return func(rs []spec.Reach) bool {
		for _, r := range rs {
			if r.State != s {
				return false
			}
		}
		return len(rs) > 0
	}
}

func server(t *testing.T, h http.HandlerFunc) netip.AddrPort {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return netip.MustParseAddrPort(s.Listener.Addr().String())
}

func TestVisitorFollows(t *testing.T) {
	var mu sync.Mutex
	status := http.StatusOK
	at := server(t, func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		w.WriteHeader(status)
	})
	v, await := begin(t, &dialer{})
	v.Watch([]spec.VisitTarget{{Project: "p", Service: "s", Addr: at, Path: "/", Often: true}})
	await("reached", all(spec.ReachReachable))
	mu.Lock()
	status = http.StatusBadGateway
	mu.Unlock()
	await("unreachable", all(spec.ReachUnreachable))
	if r := v.Reach()[0]; r.Detail != "GET / answered 502 Bad Gateway" || r.Failed < 3 {
		t.Errorf("%+v", r)
	}
	mu.Lock()
	status = http.StatusNotFound // somebody answers, which is all that is asked
	mu.Unlock()
	await("reached again", all(spec.ReachReachable))
	if got := v.Tally("p", time.Time{}); len(got) != 1 || got[0].Failed < 3 || got[0].Sent <= got[0].Failed || got[0].Reasons["GET / answered 502 Bad Gateway"] != got[0].Failed {
		t.Errorf("tally %+v", got)
	}
	v.Watch(nil)
	if got := v.Reach(); len(got) != 0 {
		t.Errorf("found at nothing: %+v", got)
	}
}

// What is to be visited often is, though nothing else wakes the schedule.
func TestVisitorKeepsPace(t *testing.T) {
	d := &dialer{}
	v, await := begin(t, d)
	v.Watch([]spec.VisitTarget{{Project: "p", Addr: server(t, func(http.ResponseWriter, *http.Request) {}), Often: true}})
	await("reached", all(spec.ReachReachable))
	asked := func() int { d.mu.Lock(); defer d.mu.Unlock(); return d.asked }
	for until := time.Now().Add(seldom - time.Second); asked() < 10; time.Sleep(often) {
		if time.Now().After(until) {
			t.Fatalf("%d visits in %s, want one every %s", asked(), seldom-time.Second, often)
		}
	}
}

// Hundreds of addresses that don't answer keep no more than so many visits.
func TestVisitorDoesNotPileUp(t *testing.T) {
	d := &dialer{}
	v, await := begin(t, d)
	var silent []spec.VisitTarget
	for i := range 200 {
		silent = append(silent, spec.VisitTarget{Project: "p", Addr: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), uint16(1000+i)), Often: true})
	}
	well := server(t, func(http.ResponseWriter, *http.Request) {})
	v.Watch(append(silent, spec.VisitTarget{Project: "q", Addr: well}))
	await("reached beside them", func(rs []spec.Reach) bool {
		for _, r := range rs {
			if r.Project == "q" {
				return r.State == spec.ReachReachable
			}
		}
		return false
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.most > flights {
		t.Errorf("%d visits at a time, want at most %d", d.most, flights)
	}
}

// After a commit nobody waits for a visit that began before it.
func TestVisitorAgain(t *testing.T) {
	slow := make(chan struct{})
	var asked atomic.Int64
	at := server(t, func(_ http.ResponseWriter, r *http.Request) {
		if asked.Add(1) == 1 {
			select {
			case <-slow:
			case <-r.Context().Done():
			}
		}
	})
	v, await := begin(t, &dialer{})
	v.Watch([]spec.VisitTarget{{Project: "p", Addr: at, Path: "/", Often: true}})
	for began := time.Now(); asked.Load() == 0 && time.Since(began) < 10*time.Second; {
		time.Sleep(time.Millisecond)
	}
	committed := time.Now()
	v.Again()
	await("reached", func(rs []spec.Reach) bool { return !rs[0].Asked.Before(committed) })
	close(slow)
}

// A visit that still waits for its answer when a later one has its own makes no
// gap shorter: who came with it has waited for as long.
func TestGapOfAVisitThatWaits(t *testing.T) {
	slow, waits := make(chan struct{}), make(chan struct{})
	var asked atomic.Int64
	at := server(t, func(_ http.ResponseWriter, r *http.Request) {
		if asked.Add(1) == 2 {
			close(waits)
			select {
			case <-slow:
			case <-r.Context().Done():
			}
		}
	})
	v, await := begin(t, &dialer{})
	begun := time.Now()
	v.Watch([]spec.VisitTarget{{Project: "p", Addr: at, Path: "/", Often: true}})
	<-waits
	since := time.Now()
	gap := func() time.Duration { return v.Tally("p", begun)[0].LongestGap.Std() }
	time.Sleep(6 * often)
	if lasts := time.Since(since); gap() < lasts {
		t.Errorf("%s while nobody has an answer for %s", gap(), lasts)
	}
	committed := time.Now()
	v.Again()
	await("reached", func(rs []spec.Reach) bool { return !rs[0].Asked.Before(committed) })
	if lasted := committed.Sub(since); gap() < lasted {
		t.Errorf("%s after nobody had an answer for %s", gap(), lasted)
	}
	close(slow)
}

// Where nobody was ever served and nobody could be, nobody is asked.
func TestVisitorLeavesIdleAlone(t *testing.T) {
	d := &dialer{}
	v, await := begin(t, d)
	at := server(t, func(http.ResponseWriter, *http.Request) {})
	idle := spec.VisitTarget{Project: "p", Addr: at, Often: true, Absent: true}
	v.Watch([]spec.VisitTarget{idle})
	time.Sleep(3 * often)
	d.mu.Lock()
	if d.asked > 0 {
		t.Errorf("asked %d times", d.asked)
	}
	d.mu.Unlock()
	idle.Absent = false
	v.Watch([]spec.VisitTarget{idle})
	await("reached", all(spec.ReachReachable))
}

// A visit leaves nothing of its connection with the server, seldom something with
// us, and shows the server an ordinary end.
func TestVisitLeavesLittle(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ends := make(chan error, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, err = c.Read(make([]byte, 1))
			ends <- err
			_ = c.Close()
		}
	}()
	at := netip.MustParseAddrPort(l.Addr().String())
	const visits = 40
	for range visits {
		if err := ask(t.Context(), &dialer{}, spec.VisitTarget{Addr: at}); err != nil {
			t.Fatal(err)
		}
		if err := <-ends; err == nil || err.Error() != "EOF" {
			t.Errorf("the server reads %v, want the end", err)
		}
	}
	table, err := os.ReadFile("/proc/thread-self/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	const timeWait = "06"
	port, ours := fmt.Sprintf(":%04X", at.Port()), 0
	for line := range bytes.Lines(table) {
		f := strings.Fields(string(line))
		switch {
		case len(f) < 4 || f[3] != timeWait:
		case strings.HasSuffix(f[1], port):
			t.Errorf("left behind with the server: %s", line)
		case strings.HasSuffix(f[2], port):
			ours++
		}
	}
	if ours > visits*3/4 {
		t.Errorf("%d of %d visits left something behind", ours, visits)
	}
}
