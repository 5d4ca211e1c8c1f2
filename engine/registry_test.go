package engine

import (
	"context"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A request without an answer says for whom it waits, and what for, before it is
// given up.
func TestRequestTellsWhatItWaitsFor(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	until := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	noNames := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) { return nil, until(ctx) }}
	for url, c := range map[string]struct {
		dialer net.Dialer
		want   string
	}{
		"http://registry.example/v2/":            {net.Dialer{Resolver: noNames}, "looks up the name registry.example"},
		"http://127.0.0.1:1/v2/":                 {net.Dialer{ControlContext: func(ctx context.Context, _, _ string, _ syscall.RawConn) error { return until(ctx) }}, "connects to 127.0.0.1:1 at 127.0.0.1:1"},
		"http://" + silent.Addr().String() + "/": {net.Dialer{}, "waits for an answer of " + silent.Addr().String()},
	} {
		var mu sync.Mutex
		var said []string
		transport := idleTransport{&http.Transport{DialContext: c.dialer.DialContext}, time.Second, func(what string) {
			mu.Lock()
			defer mu.Unlock()
			said = append(said, what)
		}}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if resp, err := transport.RoundTrip(r); err == nil {
			resp.Body.Close()
			t.Errorf("%s: an answer", url)
		}
		mu.Lock()
		if got := strings.Join(said, ", "); got != c.want {
			t.Errorf("%s: %q, want %q", url, got, c.want)
		}
		mu.Unlock()
	}
}
