// Command hello is the smallest service that shows a redeploy: it names its
// version and its replica in every answer, and leaves as a lame duck.
//
//	GET /                         "hello from web-1, version v1"
//	GET /healthz                  200
//	GET /download?bytes=&rate=    that many bytes, at that many bytes a second (0 = as fast as can be)
package main

import (
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"dunnage/examples/internal/lameduck"
)

// version is set by the linker: an image is one version.
var version = "dev"

func main() {
	listen := flag.String("listen", ":80", "address to listen on")
	leave := flag.Duration("leave", 25*time.Second, "how long to finish connections after SIGTERM; less than the stop grace period")
	flag.Parse()
	name, err := os.Hostname()
	if err != nil {
		log.Fatal("hello: read host name: ", err)
	}
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal("hello: ", err)
	}
	log.Printf("hello %s on %s", version, l.Addr())
	if err := lameduck.Serve(l, handler(name), *leave); err != nil {
		log.Fatal("hello: ", err)
	}
}

func handler(name string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "hello from %s, version %s\n", name, version)
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /download", download)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Version", version)
		w.Header().Set("X-Replica", name)
		mux.ServeHTTP(w, r)
	})
}

// Byte number i of a download is i modulo 251: every client can check it.
const period = 251

// download writes in slices of 50 ms, so that a slow rate is smooth.
func download(w http.ResponseWriter, r *http.Request) {
	total, err1 := number(r, "bytes")
	rate, err2 := number(r, "rate")
	if err1 != nil || err2 != nil {
		http.Error(w, "bytes and rate must be numbers, 0 or more", http.StatusBadRequest)
		return
	}
	slice := int64(64 << 10)
	var wait time.Duration
	if rate > 0 {
		slice, wait = max(rate/20, 1), 50*time.Millisecond
	}
	w.Header().Set("Content-Length", strconv.FormatInt(total, 10))
	send(w, r, total, slice, wait)
}

func send(w http.ResponseWriter, r *http.Request, total, slice int64, wait time.Duration) {
	flush := http.NewResponseController(w)
	for sent := int64(0); sent < total; {
		p := make([]byte, min(slice, total-sent))
		for i := range p {
			p[i] = byte((sent + int64(i)) % period)
		}
		if _, err := w.Write(p); err != nil {
			return // the client went away
		}
		if err := flush.Flush(); err != nil {
			return
		}
		sent += int64(len(p))
		select {
		case <-r.Context().Done():
			return
		case <-time.After(wait):
		}
	}
}

// number reads a query parameter; an absent one is 0.
func number(r *http.Request, name string) (int64, error) {
	s := r.FormValue(name)
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 10, 62)
	return int64(n), err
}
