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
package main

import (
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"sync"
	"syscall"

	"dunnage/engine/logfile"
)

func main() {
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE)
	debug.SetGCPercent(20) // one of these runs for every container: memory before speed
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

type options struct {
	path  string
	size  int64
	files int
}

func parse(args []string) (options, error) {
	o := options{size: 10 << 20, files: 3}
	for i := 0; i+1 < len(args); i += 2 {
		var err error
		switch key, value := args[i], args[i+1]; key {
		case "path":
			o.path = value
		case "size":
			o.size, err = strconv.ParseInt(value, 10, 64)
		case "files":
			o.files, err = strconv.Atoi(value)
		default:
			err = fmt.Errorf("unknown option")
		}
		if err != nil {
			return o, fmt.Errorf("option %s=%s: %w", args[i], args[i+1], err)
		}
	}
	if o.path == "" || o.size <= 0 {
		return o, fmt.Errorf("needs path and a size above 0, as the engine gives them in the log URI")
	}
	return o, nil
}

func run(o options) error {
	// The working directory is the container's bundle: don't hold it.
	if err := os.Chdir("/"); err != nil {
		return err
	}
	w := logfile.NewWriter(o.path, o.size, o.files)
	if err := ready(os.NewFile(5, "ready")); err != nil {
		return err
	}
	var wg sync.WaitGroup
	for stream, fd := range map[string]uintptr{logfile.Stdout: 3, logfile.Stderr: 4} {
		wg.Go(func() {
			// A pipe ends with EOF; any other error ends the stream all the same.
			_ = logfile.Copy(w, stream, os.NewFile(fd, stream))
		})
	}
	wg.Wait()
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
