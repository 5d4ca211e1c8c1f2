package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

func serveHTTP(port int) error {
	mux := http.NewServeMux()
	quit := make(chan os.Signal, 1)
	mux.HandleFunc("GET /", answer)
	mux.HandleFunc("GET /id", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, hostname()) })
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, os.Getenv("VERSION")) })
	mux.HandleFunc("GET /bytes", sendBytes)
	mux.HandleFunc("GET /slow", slow)
	mux.HandleFunc("GET /health", health)
	mux.HandleFunc("POST /quit", func(http.ResponseWriter, *http.Request) { quit <- syscall.SIGTERM })
	return listenHTTP(port, mux, quit)
}

// listenHTTP answers until SIGTERM, or a signal on quit, and finishes the
// requests in hand.
func listenHTTP(port int, mux http.Handler, quit chan os.Signal) error {
	signal.Notify(quit, syscall.SIGTERM)
	s := &http.Server{Addr: fmt.Sprintf(":%d", port), Handler: mux, ReadHeaderTimeout: time.Minute}
	l, err := net.Listen("tcp", s.Addr)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	failed := make(chan error, 1)
	go func() { failed <- s.Serve(l) }()
	select {
	case err := <-failed:
		return err
	case <-quit:
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// unhealthy is the file that makes /health answer 503.
const unhealthy = "/tmp/unhealthy"

func health(w http.ResponseWriter, _ *http.Request) {
	if _, err := os.Stat(unhealthy); err == nil {
		http.Error(w, "unhealthy", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

func slow(w http.ResponseWriter, r *http.Request) {
	d, err := time.ParseDuration(r.URL.Query().Get("d"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	time.Sleep(d)
	answer(w, r)
}

func sendBytes(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.Atoi(r.URL.Query().Get("n"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	pause, _ := time.ParseDuration(r.URL.Query().Get("pause")) // none is no pause
	w.Header().Set("Content-Length", strconv.Itoa(n))
	chunk := make([]byte, 64<<10)
	for n > 0 {
		m, err := w.Write(chunk[:min(n, len(chunk))])
		if err != nil {
			return
		}
		n -= m
		if pause > 0 {
			if f, ok := w.(http.Flusher); ok {
				f.Flush()
			}
			time.Sleep(pause)
		}
	}
}
