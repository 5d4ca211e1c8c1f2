package metrics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Handler answers with all metrics. It is safe for concurrent use.
func Handler(src Sources, log *slog.Logger) (http.Handler, error) {
	return handler(src, log, maxSeries)
}

func handler(src Sources, log *slog.Logger, limit int) (http.Handler, error) {
	r := prometheus.NewRegistry()
	for _, c := range []prometheus.Collector{
		&collector{src: src, log: log, limit: limit},
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("prepare metrics: %w", err)
		}
	}
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{
		ErrorLog:            slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		ErrorHandling:       promhttp.ContinueOnError, // what can be told is told
		DisableCompression:  true,                     // it would cost as much as all the rest, for a way that is a socket
		MaxRequestsInFlight: 4,
		Timeout:             10 * time.Second,
		ProcessStartTime:    time.Now(),
	}), nil
}

// Times of the listener on a loopback address.
const (
	readTimeout  = 5 * time.Second
	writeTimeout = 15 * time.Second
	idleTimeout  = 2 * time.Minute // Prometheus asks again before it is over
	// listenAgain is how soon an address that is in use is tried again.
	listenAgain = 10 * time.Second
)

// Server serves metrics on a loopback address beside the socket, and nothing else.
type Server struct {
	addr    netip.AddrPort
	again   time.Duration
	http    *http.Server
	log     *slog.Logger
	problem atomic.Pointer[string]
}

// NewServer makes one; Run starts it.
func NewServer(addr netip.AddrPort, h http.Handler, log *slog.Logger) *Server {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", h)
	return &Server{addr: addr, again: listenAgain, log: log, http: &http.Server{
		Handler: mux, ReadHeaderTimeout: readTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}}
}

// Run serves until ctx ends. An address that can't be listened on is told of
// and tried again: numbers aren't worth an agent that doesn't start.
func (s *Server) Run(ctx context.Context) {
	defer context.AfterFunc(ctx, func() { _ = s.http.Close() })()
	for ctx.Err() == nil {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.addr.String())
		if err == nil {
			s.tell("")
			err = s.http.Serve(l)
		}
		if ctx.Err() != nil || errors.Is(err, http.ErrServerClosed) {
			return
		}
		s.tell(fmt.Sprintf("metrics aren't served on %s: %v; free the port, or set another one as metrics.listen in the agent's file; it is tried again every %s", s.addr, err, s.again))
		select {
		case <-ctx.Done():
		case <-time.After(s.again):
		}
	}
}

// tell notes the problem, and logs it once.
func (s *Server) tell(problem string) {
	before := s.problem.Swap(&problem)
	switch {
	case before != nil && *before == problem:
	case problem != "":
		s.log.Error("metrics", "problem", problem)
	default:
		s.log.Info("metrics are served", "address", s.addr)
	}
}

// Problem is why the address isn't served, in one line; empty = it is.
func (s *Server) Problem() string {
	if p := s.problem.Load(); p != nil {
		return *p
	}
	return ""
}
