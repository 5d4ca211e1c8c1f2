package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/typeurl/v2"

	"dunnage/engine/inside"
	"dunnage/spec"
)

// Check is Exec for a health check: its output is cut to the end, nothing that
// the command started outlives it, and it doesn't cost a run of runc each time.
// A process in the container, the prober, runs the commands. Where there is
// none to be had, it is an Exec.
func (e *Engine) Check(ctx context.Context, r spec.ExecRequest, output io.Writer) (int, error) {
	p := e.probers.of(r.Replica)
	if !p.turn.TryLock() { // another check of the replica runs: its time isn't this one's
		return e.Exec(ctx, r, spec.Terminal{Stdout: output, Stderr: output})
	}
	defer p.turn.Unlock()
	answer, err := e.ask(ctx, p, r)
	if err == nil {
		_, err = output.Write(answer.Output)
		return answer.Code, err
	}
	if ctx.Err() != nil {
		return 0, fmt.Errorf("check in %s: %w", r.Replica, err)
	}
	code, plain := e.Exec(ctx, r, spec.Terminal{Stdout: output, Stderr: output})
	if plain == nil && !errors.Is(err, errResting) { // else the container or containerd is to blame
		p.rest = time.Now().Add(proberRest)
		if !p.told {
			p.told = true
			e.cfg.Log.Warn("health checks cost a run of runc each: the prober doesn't work", "replica", r.Replica, "error", err)
		}
	}
	return code, plain
}

const (
	proberID = "prober" // one a replica, so that an agent finds that of the agent before
	// proberRest is how long a prober that failed isn't tried again.
	proberRest = time.Minute
	// answerGrace is how much later than the check's end the prober may say so.
	answerGrace = 2 * time.Second
	// proberEnd is what a prober gets to kill its command and to end.
	proberEnd = 2 * time.Second
)

var errResting = errors.New("the prober failed a moment ago")

// probers knows the prober of each replica that was checked.
type probers struct {
	mu  sync.Mutex
	all map[string]*prober
}

type prober struct {
	turn sync.Mutex // held by the check that uses the rest
	link *link      // nil = none runs
	rest time.Time  // until when none is started
	told bool
}

func (ps *probers) of(replica string) *prober {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.all == nil {
		ps.all = make(map[string]*prober)
	}
	if ps.all[replica] == nil {
		ps.all[replica] = &prober{}
	}
	return ps.all[replica]
}

func (ps *probers) drop(replica string) *prober {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p := ps.all[replica]
	delete(ps.all, replica)
	return p
}

// ask has the prober run the command, starting one where none runs. An idle one
// may have ended unnoticed, so an old link gets a second try.
func (e *Engine) ask(ctx context.Context, p *prober, r spec.ExecRequest) (inside.Answer, error) {
	for {
		fresh := p.link == nil
		if fresh {
			if time.Now().Before(p.rest) {
				return inside.Answer{}, errResting
			}
			var err error
			if p.link, err = e.startProber(ctx, r.Replica); err != nil {
				return inside.Answer{}, err
			}
		}
		answer, err := p.link.ask(ctx, r.Command)
		if answer.TimedOut {
			<-ctx.Done() // its clock and ours differ by a little
			return answer, context.Cause(ctx)
		}
		if err == nil {
			return answer, nil
		}
		e.dropLink(ctx, r.Replica, p.link)
		p.link = nil
		if fresh || ctx.Err() != nil {
			return answer, err
		}
	}
}

// link is the agent's side of a prober's pipes. They go through the shim, so
// that checks go on without containerd.
type link struct {
	io      *cio.DirectIO
	answers chan inside.Answer // closed when the prober has ended
}

func (l *link) ask(ctx context.Context, command []string) (inside.Answer, error) {
	r := inside.Request{Command: command}
	if deadline, ok := ctx.Deadline(); ok {
		r.Timeout = max(time.Until(deadline), time.Millisecond)
	}
	sent := make(chan error, 1)
	go func() { sent <- inside.WriteRequest(l.io.Stdin, r) }() // ends with the link at the latest
	done := ctx.Done()
	var late <-chan time.Time
	for {
		select {
		case err := <-sent:
			if err != nil {
				return inside.Answer{}, fmt.Errorf("ask the prober: %w", err)
			}
			sent = nil
		case a, ok := <-l.answers:
			if !ok {
				return a, errors.New("the prober ended without an answer")
			}
			return a, nil
		case <-done:
			if !errors.Is(ctx.Err(), context.DeadlineExceeded) { // nobody wants to know any more
				return inside.Answer{}, context.Cause(ctx)
			}
			done, late = nil, time.After(answerGrace)
		case <-late:
			return inside.Answer{}, context.Cause(ctx)
		}
	}
}

func (l *link) read() {
	defer close(l.answers)
	for {
		a, err := inside.ReadAnswer(l.io.Stdout)
		if err != nil {
			return
		}
		l.answers <- a
	}
}

// startProber starts dunnage-init in the replica as Exec would start a command:
// same user, limits, environment and confinement. What an earlier agent left is
// ended first.
func (e *Engine) startProber(ctx context.Context, replica string) (*link, error) {
	c, err := e.client.LoadContainer(ctx, replica)
	if err != nil {
		return nil, e.wrap(ctx, err, "start prober: find container")
	}
	process, err := e.execProcess(ctx, c, spec.ExecRequest{Command: []string{initTarget, "probe", inside.Version}}, proberID)
	if err != nil {
		return nil, fmt.Errorf("start prober: %w", err)
	}
	body, err := typeurl.MarshalAnyToProto(process)
	if err != nil {
		return nil, fmt.Errorf("encode prober's process: %w", err)
	}
	e.endProber(ctx, replica, proberKilled)
	fifos, err := cio.NewFIFOSetInDir(filepath.Join(e.cfg.RunDir, "fifo"), proberID, false)
	if err != nil {
		return nil, fmt.Errorf("make the prober's pipes: %w", err)
	}
	l := &link{answers: make(chan inside.Answer, 1)}
	// The pipes live longer than the check that needs them first.
	if l.io, err = cio.NewDirectIO(context.WithoutCancel(ctx), fifos); err != nil {
		return nil, errors.Join(fmt.Errorf("open the prober's pipes: %w", err), fifos.Close())
	}
	e.wg.Go(func() { _, _ = io.Copy(io.Discard, l.io.Stderr) }) // says why it ended, which the fallback finds out
	e.wg.Go(l.read)
	service := e.client.TaskService()
	_, err = service.Exec(ctx, &tasks.ExecProcessRequest{
		ContainerID: replica, ExecID: proberID, Stdin: fifos.Stdin, Stdout: fifos.Stdout, Stderr: fifos.Stderr,
		Spec: body,
	})
	if err == nil {
		_, err = service.Start(ctx, &tasks.StartRequest{ContainerID: replica, ExecID: proberID})
	}
	if err != nil {
		e.dropLink(ctx, replica, l) // it may have been started all the same
		return nil, e.wrap(ctx, errgrpc.ToNative(err), "start prober")
	}
	return l, nil
}

// dropLink ends the prober behind the link, with what it runs.
func (e *Engine) dropLink(ctx context.Context, replica string, l *link) {
	// With both ends of its input closed, here and by the shim, it ends itself.
	_ = l.io.Stdin.Close()
	e.endProber(ctx, replica, proberAsked)
	l.close()
}

// close lets go of the pipes. It fails only for those that are gone already.
func (l *link) close() {
	l.io.Cancel()
	_ = l.io.Close()
}

// How a prober is ended. One of ours is asked first: it alone reaps what it
// started. That of an earlier agent, which was killed, doesn't see the end of its
// input for seconds, and those would be taken from the check that wants the next.
const (
	proberAsked  = true
	proberKilled = false
)

// endProber ends the replica's prober, if there is one, and its command. What
// can't be done here, because containerd doesn't answer, the next start does.
func (e *Engine) endProber(ctx context.Context, replica string, asked bool) {
	ctx = context.WithoutCancel(ctx)
	look, cancel := context.WithTimeout(ctx, proberEnd)
	defer cancel()
	service := e.client.TaskService()
	found, err := service.Get(look, &tasks.GetRequest{ContainerID: replica, ExecID: proberID})
	if err != nil {
		return
	}
	if found.Process.Status == task.Status_RUNNING {
		e.endRunning(ctx, replica, asked)
	}
	deleting, cancel := context.WithTimeout(ctx, killLimit)
	defer cancel()
	_, _ = service.DeleteProcess(deleting, &tasks.DeleteProcessRequest{ContainerID: replica, ExecID: proberID})
}

func (e *Engine) endRunning(ctx context.Context, replica string, asked bool) {
	if asked && e.askToEnd(ctx, replica) {
		return
	}
	e.killExec(ctx, replica, proberID, 0)
	killed, cancel := context.WithTimeout(ctx, proberEnd)
	defer cancel()
	_, _ = e.client.TaskService().Wait(killed, &tasks.WaitRequest{ContainerID: replica, ExecID: proberID})
}

// askToEnd closes the prober's input, and reports whether it has ended then.
func (e *Engine) askToEnd(ctx context.Context, replica string) bool {
	ctx, cancel := context.WithTimeout(ctx, proberEnd)
	defer cancel()
	service := e.client.TaskService()
	_, err := service.CloseIO(ctx, &tasks.CloseIORequest{ContainerID: replica, ExecID: proberID, Stdin: true})
	if err == nil {
		_, err = service.Wait(ctx, &tasks.WaitRequest{ContainerID: replica, ExecID: proberID})
	}
	return err == nil
}

// forgetProber lets go of the pipes of a replica that is gone, and its prober
// with it.
func (e *Engine) forgetProber(replica string) {
	p := e.probers.drop(replica)
	if p == nil {
		return
	}
	e.wg.Go(func() { // a check that is under way ends soon
		p.turn.Lock()
		defer p.turn.Unlock()
		if p.link != nil {
			p.link.close()
			p.link = nil
		}
	})
}

// endProbers ends every prober that this engine has started.
func (e *Engine) endProbers() {
	e.probers.mu.Lock()
	defer e.probers.mu.Unlock()
	var wg sync.WaitGroup
	for replica, p := range e.probers.all {
		wg.Go(func() {
			p.turn.Lock()
			defer p.turn.Unlock()
			if p.link != nil {
				e.dropLink(context.Background(), replica, p.link)
				p.link = nil
			}
		})
	}
	wg.Wait()
}
