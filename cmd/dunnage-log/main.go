// One is started for each replica. To find out how much CPU its cgroup may use,
// Go would read the list of all mounts, which grows with each replica.
//
//go:debug containermaxprocs=0

// Command dunnage-log writes one container's log. The shim of the container
// starts it ("binary://" logging of containerd) and it ends when both streams
// have ended, so logging needs neither the agent nor containerd.
//
// It dies of nothing else: without it the container's next write would be
// answered with SIGPIPE. Signals are ignored, and a full disk means dropped
// and counted lines.
//
// Protocol (containerd, core/runtime/v2/README.md, "Logging"): descriptors 3
// and 4 are the container's stdout and stderr, 5 takes one byte when the
// container may start. The query of the URI comes as arguments, pairs of key
// and value in any order:
//
//	path   the log file, absolute
//	size   bytes of a file before it is rotated
//	files  how many files are kept
//	gzip   "off": older files stay as they are
//
// and, if lines go somewhere else too,
//
//	forward   journald, udp://ADDRESS:PORT, tcp://ADDRESS:PORT or unix:///PATH
//	tag       what they are named by
//	project, service
//	facility  of a syslog, its number
//	format    of a syslog: rfc5424, rfc3164 or empty for what the socket takes
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"

	"dunnage/engine/logwriter"
)

func main() {
	if len(os.Args) == 3 && (os.Args[1] == compressVerb || os.Args[1] == steppedBack) {
		if compress(os.Args[1], os.Args[2]) != nil {
			os.Exit(1) // the log stays as it is
		}
		return
	}
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE)
	frugal()
	o, err := parse(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "dunnage-log:", err)
		os.Exit(2) // before the container starts: the shim reports it
	}
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "dunnage-log:", err)
		os.Exit(1)
	}
}

// frugal is the runtime's smallest footprint: one of these runs for every
// container.
func frugal() {
	runtime.GOMAXPROCS(1) // twice the caches for no more bytes a second
	runtime.MemProfileRate = 0
	debug.SetGCPercent(20)
	yieldToServices()
}

// nice gives a tenth of a service's weight (sched(7)).
const nice = 10

// yieldToServices lowers the priority: a container that prints
// without end is to wait for its log, not others for both. A priority is a
// thread's; those to come have that of the thread that starts them.
func yieldToServices() {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return // it works as well
	}
	for _, t := range threads {
		if id, err := strconv.Atoi(t.Name()); err == nil {
			_ = syscall.Setpriority(syscall.PRIO_PROCESS, id, nice)
		}
	}
}

type options struct {
	path  string
	size  int64
	files int
	gzip  bool
	also  logwriter.Forward
}

func parse(args []string) (options, error) {
	o := options{size: 10 << 20, files: 3, gzip: true}
	for i := 0; i+1 < len(args); i += 2 {
		if err := o.set(args[i], args[i+1]); err != nil {
			return o, fmt.Errorf("option %s=%s: %w", args[i], args[i+1], err)
		}
	}
	if o.path == "" || o.size <= 0 {
		return o, fmt.Errorf("needs path and a size above 0, as the engine gives them in the log URI")
	}
	return o, nil
}

func (o *options) set(key, value string) (err error) {
	switch key {
	case "path":
		o.path = value
		o.also.Replica = strings.TrimSuffix(filepath.Base(value), ".log")
	case "size":
		o.size, err = strconv.ParseInt(value, 10, 64)
	case "files":
		o.files, err = strconv.Atoi(value)
	case "gzip":
		o.gzip = value != "off"
	case "forward":
		o.also.To = value
	case "tag":
		o.also.Tag = value
	case "project":
		o.also.Project = value
	case "service":
		o.also.Service = value
	case "facility":
		o.also.Facility, err = strconv.Atoi(value)
	case "format":
		o.also.Format = value
	default:
		err = errors.New("unknown option")
	}
	return err
}

func run(o options) error {
	// The working directory is the container's bundle: don't hold it.
	if err := os.Chdir("/"); err != nil {
		return err
	}
	w := logwriter.NewWriter(o.path, o.size, o.files)
	run := logwriter.Options{}
	if o.gzip {
		run.Compress = startCompression
	}
	if o.also.To != "" {
		o.also.Host, _ = os.Hostname() // without it, "-"
		f, err := logwriter.NewForwarder(o.also, w)
		if err != nil {
			return err
		}
		run.Forward = f
	}
	if err := ready(os.NewFile(5, "ready")); err != nil {
		return err
	}
	// A pipe ends with EOF; any other error ends the stream all the same.
	_ = logwriter.Run(w, map[string]io.Reader{logwriter.Stdout: os.NewFile(3, "stdout"), logwriter.Stderr: os.NewFile(4, "stderr")}, run)
	return w.Close()
}

// ready lets the shim start the container. containerd before 2.0 waits for the
// end of the pipe, later ones for the byte.
func ready(f *os.File) error {
	if _, err := f.Write([]byte{0}); err != nil {
		return fmt.Errorf("tell the shim to go on: %w", err)
	}
	return f.Close()
}
