// Command dunnage-load puts traffic on a port and prints what was lost. Start
// it in the network namespace that the traffic shall come from:
//
//	nsenter --net=/run/netns/client dunnage-load -addr 10.0.0.1:8080 -rate 500 -duration 10s
//
// It exits 1 when a request failed.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"dunnage/test/load"
)

func main() {
	var c load.Config
	flag.StringVar(&c.Addr, "addr", "127.0.0.1:8080", "host:port to ask")
	flag.StringVar(&c.Path, "path", "/", "path of new and keep-alive requests")
	flag.StringVar(&c.VersionHeader, "version-header", "X-Version", "response header that names the version")
	flag.DurationVar(&c.Timeout, "timeout", 0, "for one request (default 5s)")
	flag.DurationVar(&c.Duration, "duration", 0, "how long; 0 = until SIGINT or SIGTERM")
	flag.IntVar(&c.Rate, "rate", 0, "new connections a second")
	flag.IntVar(&c.KeepAlive, "keepalive", 0, "keep-alive clients")
	flag.DurationVar(&c.Interval, "interval", 0, "between two requests of a keep-alive client (default 50ms)")
	flag.IntVar(&c.Downloads, "downloads", 0, "download clients")
	flag.StringVar(&c.DownloadPath, "download-path", "", "path of a download")
	flag.Int64Var(&c.DownloadBytes, "download-bytes", 0, "length of a download in bytes")
	flag.IntVar(&c.UDP, "udp", 0, "UDP clients")
	flag.StringVar(&c.UDPAddr, "udp-addr", "", "host:port of the datagrams (default -addr)")
	realtime := flag.Bool("realtime", false, "before everybody else on this machine's CPUs, as one that asks from another machine")
	asJSON := flag.Bool("json", false, "print JSON")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "dunnage-load: %q isn't a flag\n", flag.Arg(0))
		os.Exit(2)
	}
	if *realtime {
		if err := beforeOthers(); err != nil {
			fmt.Fprintln(os.Stderr, "dunnage-load: -realtime:", err)
			os.Exit(2)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	rep, err := load.Run(ctx, c)
	if err != nil {
		fmt.Fprintln(os.Stderr, "dunnage-load:", err)
		os.Exit(2)
	}
	show(rep, *asJSON)
	if rep.Failed > 0 {
		os.Exit(1)
	}
}

// beforeOthers takes real-time priority and begins anew, if it hasn't: a
// priority is a thread's, and the runtime has several by now.
func beforeOthers() error {
	runtime.LockOSThread()
	a, err := unix.SchedGetAttr(0, 0)
	if err != nil || a.Policy == unix.SCHED_FIFO {
		runtime.UnlockOSThread()
		return err
	}
	if err := unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}, 0); err != nil {
		return err
	}
	return syscall.Exec("/proc/self/exe", os.Args, os.Environ())
}

func show(rep load.Report, asJSON bool) {
	if !asJSON {
		fmt.Println(rep)
		return
	}
	enc := json.NewEncoder(os.Stdout)
	enc.SetIndent("", "  ")
	if err := enc.Encode(rep); err != nil {
		fmt.Fprintln(os.Stderr, "dunnage-load: write report:", err)
		os.Exit(2)
	}
}
