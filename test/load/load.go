// Package load puts traffic on a published port and says exactly what was
// lost. It asks on fresh connections at a fixed rate (an open loop: a slow
// server doesn't slow the asking), on keep-alive connections, by long downloads
// that are checked byte for byte, and by UDP datagrams from fixed source ports.
//
// It speaks HTTP/1.1 on plain sockets rather than through net/http's client,
// whose silent retries on a dead connection would hide what is looked for.
package load

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Config says what to send. Zero counts leave that kind of traffic out.
type Config struct {
	Addr          string        // host:port, TCP
	Path          string        // of new and keep-alive requests; "" = "/"
	VersionHeader string        // response header counted in Report.Versions; "" = "X-Version"
	Timeout       time.Duration // for one request or datagram; 0 = 5 s
	Duration      time.Duration // 0 = until the context ends

	Realtime bool // dunnage-load doesn't wait for this machine's CPUs, as if it were on another

	Rate        int // new connections a second, each one request
	MaxInFlight int // new connections open at a time, more count as failed; 0 = 4096

	KeepAlive int           // keep-alive clients
	Interval  time.Duration // between two requests of one of them, or two datagrams; 0 = 50 ms

	Downloads     int    // download clients, each starting the next when one is done
	DownloadPath  string // answers bytes as Pattern has them
	DownloadBytes int64  // expected length of each

	UDP     int    // clients, each with a source port of its own
	UDPAddr string // "" = Addr; echoes, or answers with its version
}

func (c Config) withDefaults() Config {
	def(&c.Path, "/")
	def(&c.VersionHeader, "X-Version")
	def(&c.Timeout, 5*time.Second)
	def(&c.MaxInFlight, 4096)
	def(&c.Interval, 50*time.Millisecond)
	def(&c.UDPAddr, c.Addr)
	return c
}

func def[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// Run sends the load until c.Duration is over or ctx ends, waits for what is
// in flight, and returns what came of it. Requests that are under way at the
// end are finished and counted, not cut.
func Run(ctx context.Context, c Config) (Report, error) {
	c = c.withDefaults()
	if c.Rate+c.KeepAlive+c.Downloads+c.UDP == 0 {
		return Report{}, errors.New("nothing to send: no rate, keep-alive, download or UDP client asked for")
	}
	if c.Downloads > 0 && (c.DownloadPath == "" || c.DownloadBytes <= 0) {
		return Report{}, errors.New("downloads need a path and their length in bytes")
	}
	if c.Duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.Duration)
		defer cancel()
	}
	r := newRecorder()
	var wg sync.WaitGroup
	if c.Rate > 0 {
		wg.Go(func() { openLoop(ctx, c, r) })
	}
	for i := range c.KeepAlive {
		wg.Go(func() { keepAlive(ctx, c, r, phase(c, i, c.KeepAlive)) })
	}
	for i := range c.Downloads {
		wg.Go(func() { downloads(ctx, c, r, phase(c, i, c.Downloads)) })
	}
	for i := range c.UDP {
		wg.Go(func() { datagrams(ctx, c, r, phase(c, i, c.UDP)) })
	}
	wg.Wait()
	return r.report(), nil
}

// phase spreads n clients over one interval, so that they don't ask in step.
func phase(c Config, i, n int) time.Duration {
	return c.Interval * time.Duration(i) / time.Duration(n)
}

// sleep waits for d and reports whether ctx still goes on.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
