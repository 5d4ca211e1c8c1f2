package engine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"dunnage/engine/inside"
	"dunnage/spec"
)

// execMark is the variable that marks an exec's process and what it starts, so
// that all of it can be found when its time is up, in whatever session and
// under whatever parent it is by then.
const execMark = inside.ExecMark

// Exit codes of a command that could not be run, as in every shell.
const (
	exitNotExecutable = 126
	exitNotFound      = 127
)

// Exec runs a command inside a running container and returns its exit code. A
// command that can't be run is code 127 or 126, with the reason on Stderr.
// When ctx ends, the command and what it started are killed, and the error
// wraps ctx's. A read of Stdin that is under way is not waited for: it ends
// when the caller closes its reader.
func (e *Engine) Exec(ctx context.Context, r spec.ExecRequest, t spec.Terminal) (int, error) {
	c, err := e.client.LoadContainer(ctx, r.Replica)
	if err != nil {
		return 0, e.wrap(ctx, err, "exec in %s: find its container", r.Replica)
	}
	if err := e.shimAnswers(ctx, c); err != nil {
		return 0, fmt.Errorf("exec in %s: %w", r.Replica, err)
	}
	task, err := c.Task(ctx, nil)
	if errdefs.IsNotFound(err) {
		return 0, fmt.Errorf("exec in %s: it is not running: %w", r.Replica, spec.ErrRefused)
	}
	if err != nil {
		return 0, e.wrap(ctx, err, "exec in %s: find its task", r.Replica)
	}
	id := "exec-" + strings.ToLower(rand.Text()[:16])
	process, err := e.execProcess(ctx, c, r, id)
	if err != nil {
		return 0, fmt.Errorf("exec in %s: %w", r.Replica, err)
	}
	x := execution{engine: e, replica: r.Replica, program: r.Command[0], id: id, terminal: t, tty: r.TTY}
	if info, err := c.Info(ctx, client.WithoutRefreshedMetadata); err == nil {
		x.service = info.Labels[labelService]
	}
	code, err := x.run(ctx, task, process, [2]uint16{r.Rows, r.Cols})
	if err != nil {
		return 0, fmt.Errorf("exec in %s: %w", r.Replica, err)
	}
	return code, nil
}

// execProcess is the container's own process with what the request changes.
func (e *Engine) execProcess(ctx context.Context, c client.Container, r spec.ExecRequest, id string) (*specs.Process, error) {
	if len(r.Command) == 0 {
		return nil, fmt.Errorf("no command: %w", spec.ErrRefused)
	}
	s, err := c.Spec(ctx)
	if err != nil {
		return nil, e.wrap(ctx, err, "read its specification")
	}
	p := s.Process
	owner := p.User.UID
	p.Args = r.Command
	p.Terminal = r.TTY
	if r.TTY {
		p.Env = setEnv(p.Env, "TERM=xterm")
	}
	for _, kv := range r.Env {
		p.Env = setEnv(p.Env, kv)
	}
	p.Env = setEnv(p.Env, execMark+"="+id)
	if r.WorkingDir != "" {
		p.Cwd = path.Join("/", r.WorkingDir)
	}
	if r.User != "" {
		if p.User, err = e.execUser(ctx, c, r.User); err != nil {
			return nil, err
		}
		p.Capabilities = processCaps(p.Capabilities.Bounding, p.User.UID)
	}
	if hasSecretEnv(s) && readsFileOf(p, owner) {
		if id == proberID { // gives them to what it runs
			p.Args = append(p.Args, envTarget)
		} else {
			p.Args = withSecretEnv(p.Args)
		}
	}
	return p, nil
}

func (e *Engine) execUser(ctx context.Context, c client.Container, name string) (specs.User, error) {
	open, closeRoot := lazyRoot(func() ([]mount.Mount, error) {
		mounts, err := e.client.SnapshotService(e.cfg.Snapshotter).Mounts(ctx, c.ID())
		return upperAsLayer(mounts), e.wrap(ctx, err, "find its writable layer")
	})
	defer closeRoot()
	root, err := open()
	if err != nil {
		return specs.User{}, err
	}
	return lookUpUser(root, name)
}

// upperAsLayer lets users that the running container added be found too. The
// layer is only read.
func upperAsLayer(mounts []mount.Mount) []mount.Mount {
	out := make([]mount.Mount, 0, len(mounts))
	for _, m := range mounts {
		upper, lower := option(m.Options, "upperdir"), option(m.Options, "lowerdir")
		if m.Type == "overlay" && upper != "" {
			m.Options = []string{"lowerdir=" + upper + ":" + lower}
		}
		out = append(out, m)
	}
	return out
}

// execution is one command from its start to its last byte of output.
type execution struct {
	engine   *Engine
	replica  string
	service  string
	program  string
	id       string
	terminal spec.Terminal
	tty      bool
}

// drainLimit is how long output of a command that has ended is waited for: a
// process it left behind may hold its end of the pipe open for ever.
const drainLimit = time.Second

func (x *execution) run(ctx context.Context, task client.Task, p *specs.Process, size [2]uint16) (int, error) {
	stdin := &eofReader{r: x.terminal.Stdin, eof: make(chan struct{})}
	process, err := task.Exec(ctx, x.id, p, x.streams(stdin))
	if err != nil {
		return 0, x.engine.wrap(ctx, err, "make process")
	}
	defer x.delete(ctx, process)
	exit, err := process.Wait(context.WithoutCancel(ctx)) // ends with the process, which the end of ctx kills
	if err != nil {
		return 0, x.engine.wrap(ctx, err, "wait for process")
	}
	if err := process.Start(ctx); err != nil {
		if ctx.Err() != nil { // it may have been started all the same
			x.engine.killExec(ctx, x.replica, x.id, 0)
		}
		return x.cannotRun(ctx, err)
	}
	if x.tty && size[0] > 0 && size[1] > 0 {
		x.resize(ctx, process, size)
	}
	return x.follow(ctx, process, exit, stdin.eof)
}

// streams opens the pipes. Without a terminal's stdin none is made: the
// command then reads from /dev/null.
func (x *execution) streams(stdin *eofReader) cio.Creator {
	var in io.Reader
	if x.terminal.Stdin != nil {
		in = stdin
	}
	out, errs := x.terminal.Stdout, x.terminal.Stderr
	if out == nil {
		out = io.Discard
	}
	if errs == nil {
		errs = io.Discard
	}
	options := []cio.Opt{cio.WithStreams(in, out, errs), cio.WithFIFODir(filepath.Join(x.engine.cfg.RunDir, "fifo"))}
	if x.tty {
		options = append(options, cio.WithTerminal)
	}
	return cio.NewCreator(options...)
}

// eofReader tells when its reader has ended.
type eofReader struct {
	r   io.Reader
	eof chan struct{}
}

func (e *eofReader) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	if err != nil {
		close(e.eof) // io.Copy doesn't read again after an error
	}
	return n, err
}

// cannotRun turns the runtime's refusal into a shell's exit code.
func (x *execution) cannotRun(ctx context.Context, err error) (int, error) {
	failure := x.engine.startError(ctx, err)
	var f *startFailure
	if !errors.As(failure, &f) || !strings.HasPrefix(f.text, "exec") || ctx.Err() != nil {
		return 0, failure
	}
	text := f.text
	if strings.Contains(text, "executable file not found") {
		text = fmt.Sprintf("the image of %s has no program %q in its PATH", x.service, x.program)
	}
	if x.terminal.Stderr != nil {
		// The code says the same to whoever doesn't read it.
		_, _ = fmt.Fprintln(x.terminal.Stderr, "dunnage:", text)
	}
	if strings.Contains(f.text, "not found") || strings.Contains(f.text, "no such file") {
		return exitNotFound, nil
	}
	return exitNotExecutable, nil
}

// follow waits for the exit, passing on sizes of the terminal and the end of stdin.
func (x *execution) follow(ctx context.Context, process client.Process, exit <-chan client.ExitStatus, eof <-chan struct{}) (int, error) {
	resize := x.terminal.Resize
	for {
		select {
		case status := <-exit:
			code, _, err := status.Result()
			if err != nil {
				return 0, x.engine.wrap(ctx, err, "wait for its end")
			}
			return int(code), nil
		case size, more := <-resize:
			if !more {
				resize = nil
				continue
			}
			x.resize(ctx, process, size)
		case <-eof:
			eof = nil
			// The shim keeps the pipe open until it is told. A process that has
			// ended needs no telling.
			_ = process.CloseIO(ctx, client.WithStdinCloser)
		case <-ctx.Done():
			x.engine.killExec(ctx, x.replica, x.id, int(process.Pid()))
			<-exitOr(exit, killLimit)
			return 0, context.Cause(ctx)
		}
	}
}

// exitOr is closed when the process has ended or the time is up.
func exitOr(exit <-chan client.ExitStatus, limit time.Duration) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-exit:
		case <-time.After(limit):
		}
	}()
	return done
}

// resize is best effort: a wrong size is no reason to end the command.
func (x *execution) resize(ctx context.Context, process client.Process, size [2]uint16) {
	_ = process.Resize(ctx, uint32(size[1]), uint32(size[0]))
}

// delete reaps the process, takes the rest of its output and removes the
// pipes, also when the caller's time is up.
func (x *execution) delete(ctx context.Context, process client.Process) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), killLimit)
	defer cancel()
	streams := process.IO()
	timer := time.AfterFunc(drainLimit, streams.Cancel)
	defer timer.Stop()
	streams.Wait() // before Delete, which would wait for it without a limit
	// What can't be deleted goes with the task.
	_, _ = process.Delete(ctx)
	streams.Cancel()
	_ = streams.Close() // a second time, if Delete got that far: removes the directory
}
