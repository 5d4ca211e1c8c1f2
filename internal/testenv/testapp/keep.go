package main

import (
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
)

// keep serves what a file had when it started, or got SIGHUP last: as the version
// of its answers, so that a load counts who answered with which. "/hups" counts the
// signals. It is unhealthy while what it has begins with "bad".
func keep(args []string) error {
	var (
		value atomic.Value
		hups  atomic.Int64
	)
	read := func() error {
		b, err := os.ReadFile(args[0])
		value.Store(strings.TrimSpace(string(b)))
		return err
	}
	if err := read(); err != nil {
		return err
	}
	hup := make(chan os.Signal, 8)
	signal.Notify(hup, syscall.SIGHUP)
	go func() {
		for range hup {
			if err := read(); err != nil {
				fmt.Fprintln(os.Stderr, "testapp:", err)
			}
			hups.Add(1)
		}
	}()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) {
		v := value.Load().(string)
		w.Header().Set("X-Version", v)
		fmt.Fprintln(w, "version", v)
	})
	mux.HandleFunc("GET /hups", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, hups.Load()) })
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(value.Load().(string), "bad") {
			http.Error(w, "bad value", http.StatusServiceUnavailable)
			return
		}
		health(w, r)
	})
	return listenHTTP(number(args, 1, 80), mux, make(chan os.Signal, 1))
}
