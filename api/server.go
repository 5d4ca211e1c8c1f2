package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"time"
)

// Options of a Server.
type Options struct {
	Version Version
	Metrics http.Handler // what GET /metrics answers; nil = nothing does
	Log     *slog.Logger // nil = silent
	Group   int          // gid whose members may change things, as root may; -1 = none
	// SecretsGroup is the gid whose members only may change and compare secrets
	// and unlock them; -1 = none: Group's members may.
	SecretsGroup int
	// Patience is how long a client may take nothing of an event stream before
	// it is cut off. 0 = 10 s.
	Patience time.Duration
}

// Limits of a request. A manifest with hundreds of services is some 100 KB;
// beside it there may be values of secrets, each up to spec.MaxSecret.
const (
	maxJSON       = 16 << 20
	bodyTimeout   = 30 * time.Second // for a JSON body to arrive
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
)

// Server answers the API's requests out of a Backend.
type Server struct {
	backend Backend
	options Options
	http    *http.Server
	stop    context.CancelFunc // ends streams and upgraded connections
	execs   sync.WaitGroup     // upgraded connections, which http.Server forgets
}

// NewServer makes a server; Serve starts it.
func NewServer(b Backend, o Options) *Server {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Patience == 0 {
		o.Patience = 10 * time.Second
	}
	base, stop := context.WithCancel(context.Background())
	s := &Server{backend: b, options: o, stop: stop}
	s.http = &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    64 << 10,
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext:       withPeer,
		ErrorLog:          slog.NewLogLogger(o.Log.Handler(), slog.LevelWarn),
	}
	return s
}

// Serve answers on l until Shutdown, and then returns nil.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the API on %s: %w", l.Addr(), err)
	}
	return nil
}

// Shutdown takes no more requests, ends streams and execs, and waits for the
// others until ctx ends. Operations go on: they don't belong to a request.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stop()
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.http.Close())
	}
	s.execs.Wait()
	return err
}

// access says for whom a route is.
type access int

const (
	reads   access = iota // for everybody who can connect
	changes               // not for everybody: see Peer.mayChange
	manages               // as manage decides, which knows what is refused
)

// route is one thing that can be asked for.
type route struct {
	pattern string // as http.ServeMux takes it, without Prefix
	access  access
	handle  func(http.ResponseWriter, *http.Request) error
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	methods := map[string][]string{} // by path
	for _, rt := range s.routes() {
		method, path, _ := strings.Cut(rt.pattern, " ")
		methods[Prefix+path] = append(methods[Prefix+path], method)
		mux.Handle(method+" "+Prefix+path, s.guard(rt))
	}
	for path, allowed := range methods { // ServeMux prefers the patterns above, which have a method
		mux.Handle(path, s.guard(route{handle: s.wrongMethod(allowed)}))
	}
	if s.options.Metrics != nil { // where Prometheus' tools expect it
		mux.Handle("GET /metrics", s.guard(route{access: reads, handle: s.metrics}))
	}
	mux.Handle("/", s.guard(route{handle: s.unknownPath}))
	return mux
}

func (s *Server) wrongMethod(allowed []string) func(http.ResponseWriter, *http.Request) error {
	allow := strings.Join(allowed, ", ")
	return func(w http.ResponseWriter, r *http.Request) error {
		w.Header().Set("Allow", allow)
		return &Error{
			Message: fmt.Sprintf("%s doesn't take %s, only %s", r.URL.Path, r.Method, allow),
			Kind:    KindNoSuchMethod,
			Hint:    s.otherVersion(r),
		}
	}
}

func (s *Server) unknownPath(_ http.ResponseWriter, r *http.Request) error {
	return &Error{
		Message: fmt.Sprintf("the agent doesn't know the path %s; all begin with %s", r.URL.Path, Prefix),
		Kind:    KindNoSuchPath,
		Hint:    s.otherVersion(r),
	}
}

// otherVersion explains why a command line asks for what this agent doesn't
// have: one of them is older. It is empty where that isn't so.
func (s *Server) otherVersion(r *http.Request) string {
	own, theirs := s.options.Version.userAgent(), r.UserAgent()
	if !strings.HasPrefix(theirs, product) || theirs == own {
		return ""
	}
	return fmt.Sprintf("agent (%s) and command line (%s) have different versions: restart the agent with the same program",
		strings.TrimPrefix(own, product), strings.TrimPrefix(theirs, product))
}

func (s *Server) metrics(w http.ResponseWriter, r *http.Request) error {
	s.options.Metrics.ServeHTTP(w, r)
	return nil
}

// guard checks who asks, turns errors and panics into answers, and logs.
func (s *Server) guard(rt route) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w := &answer{ResponseWriter: rw}
		begin := time.Now()
		err := s.answer(rt, w, r)
		if err != nil && w.status == 0 {
			writeError(w, wireError(err))
		}
		s.log(rt, w, r, time.Since(begin), err)
		if err != nil && errors.As(err, new(panicked)) && w.status == http.StatusOK {
			panic(http.ErrAbortHandler) // half an answer must not look like a whole one
		}
	})
}

// panicked is an error made out of a handler's panic.
type panicked struct{ value any }

func (p panicked) Error() string {
	return fmt.Sprintf("the agent failed on this request (%v); its log has the details", p.value)
}

func (s *Server) answer(rt route, w http.ResponseWriter, r *http.Request) (err error) {
	defer func() {
		if v := recover(); v != nil {
			s.options.Log.Error("panic in a request", "path", r.URL.Path, "panic", v, "stack", string(debug.Stack()))
			err = panicked{v}
		}
	}()
	if p, ok := PeerFrom(r.Context()); rt.access == changes && (!ok || !p.mayChange(s.options.Group)) {
		return &Error{
			Message: fmt.Sprintf("uid %d may read but not change anything here", p.Uid),
			Kind:    KindForbidden,
			Hint:    "run it as root, or join the group that owns the agent's socket",
		}
	}
	return rt.handle(w, r)
}

func (s *Server) log(rt route, w *answer, r *http.Request, took time.Duration, err error) {
	level := slog.LevelDebug
	if rt.access != reads {
		level = slog.LevelInfo
	}
	p, _ := PeerFrom(r.Context())
	attrs := []any{"method", r.Method, "path", r.URL.Path, "status", w.status, "took", took.Round(time.Millisecond), "uid", p.Uid, "pid", p.Pid}
	if err != nil {
		attrs = append(attrs, "error", err)
	}
	s.options.Log.Log(r.Context(), level, "request", attrs...)
}

// answer remembers the status; 0 until something was written.
type answer struct {
	http.ResponseWriter
	status int
}

func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(b []byte) (int, error) {
	if a.status == 0 {
		a.status = http.StatusOK
	}
	return a.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController flush and hijack.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }
