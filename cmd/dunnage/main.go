// Command dunnage runs the containers of one Linux host: `dunnage agent` is
// the service, every other verb asks it over its socket.
//
// This package holds what people see: the verbs (one file each), how arguments
// are read (args.go), how an error becomes text and an exit code (exit.go).
// What a verb asks for is in package api.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/term"

	"dunnage/api"
)

// version is set by the build: -ldflags "-X main.version=...".
var version = "development"

func main() {
	os.Exit(runMain())
}

// runMain is main with an end that lets deferred calls run. Tests adjust the
// program: its clock, its terminal.
func runMain(adjust ...func(*program)) int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	signals := make(chan os.Signal, 2) // both, if they come at once
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	p := newProgram()
	for _, a := range adjust {
		a(p)
	}
	code := make(chan int, 1)
	go func() { code <- p.run(ctx, os.Args[1:]) }()
	var last os.Signal
	select {
	case c := <-code:
		return c
	case last = <-signals:
		cancel()
	}
	var late <-chan time.Time // never, for the agent: it has its own bounds
	if !p.serves.Load() {
		late = time.After(endTime)
	}
	select {
	case c := <-code:
		return c
	case last = <-signals:
	case <-late:
	}
	return 128 + int(last.(syscall.Signal)) // as if the signal had ended it
}

// endTime is how long a command may take to end after a signal. One that is
// blocked for ever (a FIFO without a writer, a file system that doesn't answer)
// can't look at its context.
const endTime = 3 * time.Second

// program is the command line's surroundings, so that tests can own them.
type program struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	environ        []string
	dir            string // working directory
	now            func() time.Time
	terminal       terminal
	quietColour    bool         // NO_COLOR
	serves         *atomic.Bool // it is an agent, which ends in its own time
	deploys        bool         // a manifest that is refused changes nothing, which is worth saying
}

// terminal says which standard streams are one, and how wide.
type terminal struct {
	stdin, stdout, stderr bool
	width                 int // columns of stdout; 0 = unlimited
	height                int // its lines; 0 = unlimited
}

func newProgram() *program {
	dir, err := os.Getwd()
	if err != nil {
		dir = "." // relative names still work, or say why not
	}
	p := &program{
		stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr,
		environ: os.Environ(), dir: dir, now: time.Now,
		terminal:    terminal{stdin: isTerminal(os.Stdin), stdout: isTerminal(os.Stdout), stderr: isTerminal(os.Stderr)},
		quietColour: os.Getenv("NO_COLOR") != "",
		serves:      new(atomic.Bool),
	}
	p.resize()
	return p
}

// resize takes the terminal's size as it is now.
func (p *program) resize() {
	if w, h, err := term.GetSize(int(os.Stdout.Fd())); err == nil && p.terminal.stdout {
		p.terminal.width, p.terminal.height = w, h
	}
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// run is the whole program: arguments in, exit code out.
func (p *program) run(ctx context.Context, args []string) int {
	app := p.app()
	arranged, err := arrange(app, args)
	if err == nil {
		err = app.RunContext(ctx, append([]string{app.Name}, arranged...))
	}
	return p.finish(ctx, err)
}

// connect makes a client for the agent that --host names.
func (p *program) connect(host string) (*api.Client, error) {
	return api.Dial(host, thisVersion())
}
