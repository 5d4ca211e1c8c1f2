package inside

import (
	"context"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// idle is how long a prober lives without a request: one that an agent
	// left behind, or that nobody asks often, is no guest for ever.
	idle = 2 * time.Minute
	// endLimit is what killed processes get to end, and their output to come.
	endLimit = time.Second
)

// Serve runs commands for requests, one at a time, until the pipe ends, SIGTERM
// comes or nothing was asked for a while. When a command has ended, nothing that
// it started lives on. It must be called by the main goroutine of a process that
// has no other children.
//
// The secret variables of a file, unless its name is empty, are given to the commands:
// they never are in the environment of this process, which lives as long as the container.
func Serve(in io.Reader, out io.Writer, variables string) error {
	// The kernel kills children with the thread that forked them, not with the
	// process: the main thread is the one that lives as long.
	runtime.LockOSThread()
	if err := adoptOrphans(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	requests := make(chan Request)
	go func() {
		defer stop()
		for {
			r, err := ReadRequest(in)
			if err != nil {
				return
			}
			requests <- r
		}
	}()
	timer := time.NewTimer(idle)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
			return nil
		case r := <-requests:
			answer, clean := run(ctx, r, variables)
			if err := WriteAnswer(out, answer); err != nil || !clean {
				return err
			}
			timer.Reset(idle)
		}
	}
}

// run runs one command. What it can't be rid of, because it belongs to another
// user by now, makes it report false: the next command needs a process without
// such children.
func run(ctx context.Context, r Request, variables string) (a Answer, clean bool) {
	env, err := environ(variables)
	if err != nil {
		return cannotRun(err), true
	}
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return cannotRun(err), true
	}
	// Only our end: a command's own must block as any other pipe.
	if err := unix.SetNonblock(fds[0], true); err != nil {
		return cannotRun(err), true
	}
	read, write := os.NewFile(uintptr(fds[0]), "output"), os.NewFile(uintptr(fds[1]), "output")
	defer read.Close()
	pid, err := start(r.Command, env, uintptr(fds[1]))
	_ = write.Close()
	if err != nil {
		return cannotRun(err), true
	}
	output := make(chan []byte, 1)
	go func() { output <- tail(read) }()
	status, ended := follow(ctx, pid, r.Timeout, &a)
	a.Code = exitCode(status)
	clean = ended && reapRest()
	select {
	case a.Output = <-output:
	case <-time.After(endLimit): // somebody else holds the pipe
		_ = read.Close()
		a.Output = <-output
	}
	return a, clean
}

// start runs the command in a session of its own, without input, and with one
// pipe for both outputs.
func start(argv, env []string, output uintptr) (int, error) {
	path, err := LookPath(argv[0])
	if err != nil {
		return 0, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	return syscall.ForkExec(path, argv, &syscall.ProcAttr{
		Env:   env,
		Files: []uintptr{null.Fd(), output, output},
		Sys:   &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL},
	})
}

// follow waits for the command's end, which it brings about when the time is up.
func follow(ctx context.Context, pid int, timeout time.Duration, a *Answer) (syscall.WaitStatus, bool) {
	exited := make(chan syscall.WaitStatus, 1)
	go func() { exited <- await(pid) }()
	var late <-chan time.Time
	if timeout > 0 {
		timer := time.NewTimer(timeout)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case status := <-exited:
		return status, true
	case <-late:
		a.TimedOut = true
	case <-ctx.Done():
	}
	_ = syscall.Kill(-pid, syscall.SIGKILL) // the session at once; what left it comes one by one
	for deadline := time.Now().Add(endLimit); time.Now().Before(deadline); {
		killChildren()
		select {
		case status := <-exited:
			return status, true
		case <-time.After(time.Millisecond):
		}
	}
	return 0, false
}

// tail reads to the end and keeps the last MaxOutput bytes.
func tail(r io.Reader) []byte {
	var kept []byte
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		kept = append(kept, buf[:n]...)
		if len(kept) > MaxOutput {
			kept = append(kept[:0], kept[len(kept)-MaxOutput:]...)
		}
		if err != nil {
			return kept
		}
	}
}

// cannotRun answers as a shell does.
func cannotRun(err error) Answer {
	return Answer{Code: refusalCode(err), Output: []byte(err.Error())}
}
