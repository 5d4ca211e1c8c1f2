package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"dunnage/internal/regular"
	"dunnage/orchestrator"
)

// Times of the watchdog. What the loop does in one round has deadlines that add
// up to less than dumpAfter: a loop that needs longer hangs where no deadline
// reaches, in the kernel or in a bug.
const (
	dumpAfter = time.Minute
	// exitAfter ends the agent for the service manager to start it anew. Traffic
	// needs no agent, and a new one has lost nothing but its patience.
	exitAfter = 2 * time.Minute
	// watchEvery is the time between two looks at the loop. systemd's watchdog
	// (WatchdogSec in the unit) is fed as often.
	watchEvery = 5 * time.Second
	// dumpPatience is what the dump gets: the disk may be what hangs.
	dumpPatience = 5 * time.Second
)

// watchdog looks at whether the loop comes round.
type watchdog struct {
	silence func() time.Duration // since the loop came round last
	feed    func()               // tells the service manager that all is well
	dump    func() string        // writes down what every goroutine does, and returns where
	tell    func(text string)
	exit    func(text string)

	last   time.Time // of looks
	awake  time.Time // the process was stopped until then, or began
	dumped bool      // for this silence
}

// look does what is due now.
func (w *watchdog) look(now time.Time) {
	if w.last.IsZero() || now.Sub(w.last) > 4*watchEvery { // all of the process stood still, not the loop
		w.awake = now
	}
	w.last = now
	silence := min(w.silence(), now.Sub(w.awake))
	if silence < dumpAfter {
		w.dumped = false
		w.feed()
		return
	}
	if !w.dumped {
		w.dumped = true
		w.tell(fmt.Sprintf("the agent's loop hasn't come round for %s: containers and traffic go on, changes wait; %s", silence.Round(time.Second), w.dump()))
	}
	if silence >= exitAfter {
		w.exit(fmt.Sprintf("the agent's loop hasn't come round for %s: ending, to be started anew", silence.Round(time.Second)))
	}
}

// watch looks at the loop until ctx ends.
func watch(ctx context.Context, o agentOptions, loop *orchestrator.Loop) {
	w := &watchdog{
		silence: loop.Silence,
		feed:    func() { _, _ = daemon.SdNotify(false, daemon.SdNotifyWatchdog) }, // without a service manager it does nothing
		dump:    func() string { return dumpWithin(dumpPatience, filepath.Join(o.stateDir, dumpDir), o.log) },
		tell: func(text string) {
			o.log.Error("watchdog", "problem", text)
			loop.Tell(text)
		},
		exit: func(text string) {
			o.log.Error("watchdog", "problem", text)
			os.Exit(exitError)
		},
	}
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	for {
		w.look(time.Now())
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

const (
	dumpDir   = "stuck" // in the state directory
	keptDumps = 5
	maxDump   = 4 << 20
	// logged is how much of a dump the log gets too: the state directory's disk
	// may be what hangs.
	logged = 32 << 10
)

// dumpWithin writes a dump and says where it is.
func dumpWithin(limit time.Duration, dir string, log *slog.Logger) string {
	stacks := make([]byte, maxDump)
	stacks = stacks[:runtime.Stack(stacks, true)]
	log.Error("what every goroutine does", "stacks", string(stacks[:min(len(stacks), logged)]))
	type written struct {
		path string
		err  error
	}
	done := make(chan written, 1)
	go func() {
		path, err := writeDump(dir, stacks, time.Now())
		done <- written{path, err}
	}()
	select {
	case w := <-done:
		if w.err == nil {
			return "what it does is in " + w.path
		}
		return "what it does is in the log, since " + w.err.Error()
	case <-time.After(limit):
		return fmt.Sprintf("what it does is in the log, since %s can't be written within %s", dir, limit)
	}
}

// writeDump keeps the newest dumps. Stacks have addresses and lengths of values,
// not values.
func writeDump(dir string, stacks []byte, now time.Time) (string, error) {
	if err := regular.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "goroutines-"+now.UTC().Format("20060102T150405")+".txt")
	if err := regular.WriteFile(path, stacks, 0o600); err != nil {
		return "", err
	}
	entries, err := os.ReadDir(dir) // sorted, and so by time
	if err != nil {
		return path, err
	}
	entries = slices.DeleteFunc(entries, func(e os.DirEntry) bool { return !strings.HasPrefix(e.Name(), "goroutines-") })
	for _, e := range entries[:max(0, len(entries)-keptDumps)] {
		err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
	}
	return path, err
}
