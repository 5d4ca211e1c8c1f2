package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"dunnage/spec"
)

// slowMethods are the calls that may rightly take longer than an ordinary one.
var slowMethods = map[string]time.Duration{
	"/containerd.services.tasks.v1.Tasks/Wait":           0,                // as long as the process lives
	"/containerd.services.tasks.v1.Tasks/Create":         60 * time.Second, // shim and runc start; slow under load
	"/containerd.services.tasks.v1.Tasks/Start":          60 * time.Second,
	"/containerd.services.tasks.v1.Tasks/Delete":         60 * time.Second, // the shim gives the log writer up to 12 s
	"/containerd.services.tasks.v1.Tasks/DeleteProcess":  60 * time.Second,
	"/containerd.services.diff.v1.Diff/Apply":            30 * time.Minute, // unpacks a layer of any size
	"/containerd.services.snapshots.v1.Snapshots/Commit": 5 * time.Minute,  // measures the layer's disk use
	"/containerd.services.snapshots.v1.Snapshots/Remove": 5 * time.Minute,
	"/containerd.services.images.v1.Images/Delete":       5 * time.Minute, // waits for the collection of garbage
	"/containerd.services.leases.v1.Leases/Delete":       5 * time.Minute,
}

// contentLimit bounds the wait for one message about a blob. The slowest is
// the answer to its commit, which is an fsync of a layer.
const contentLimit = 2 * time.Minute

// deadlines gives every call to containerd a deadline of its own, so that
// nobody can forget one. The caller's earlier deadline wins.
func deadlines(limit time.Duration) (grpc.UnaryClientInterceptor, grpc.StreamClientInterceptor) {
	unary := func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		d := limit
		if slow, ok := slowMethods[method]; ok {
			d = slow
		}
		if ctx.Value(patient{}) != nil {
			d = 0
		}
		if d > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, d)
			defer cancel()
		}
		return invoke(ctx, method, req, reply, cc, opts...)
	}
	stream := func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		if strings.HasSuffix(method, "/Subscribe") { // silence is normal there
			return open(ctx, desc, cc, method, opts...)
		}
		ctx, cancel := context.WithCancel(ctx)
		timer := time.AfterFunc(limit, cancel)
		s, err := open(ctx, desc, cc, method, opts...)
		if !timer.Stop() && err == nil {
			err = context.DeadlineExceeded
		}
		if err != nil {
			cancel()
			return nil, err
		}
		each := limit
		if strings.HasPrefix(method, "/containerd.services.content.") {
			each = contentLimit
		}
		return &boundedStream{ClientStream: s, cancel: cancel, limit: each}, nil
	}
	return unary, stream
}

// boundedStream cancels a stream when one message takes longer than limit.
type boundedStream struct {
	grpc.ClientStream
	limit  time.Duration
	cancel context.CancelFunc
	once   sync.Once
}

func (s *boundedStream) SendMsg(m any) error {
	timer := time.AfterFunc(s.limit, s.cancel)
	defer timer.Stop()
	return s.ClientStream.SendMsg(m)
}

func (s *boundedStream) RecvMsg(m any) error {
	timer := time.AfterFunc(s.limit, s.cancel)
	defer timer.Stop()
	err := s.ClientStream.RecvMsg(m)
	if err != nil { // the stream is over: free its context
		s.once.Do(s.cancel)
	}
	return err
}

// callError is a failed call to containerd: what was tried, what kind of
// failure it is for the caller (may be nil), and what containerd said.
type callError struct {
	op   string
	kind error
	hint string
	err  error
}

func (e *callError) Error() string {
	s := e.op + ": " + e.err.Error()
	if e.hint != "" {
		s += "; " + e.hint
	}
	return s
}

func (e *callError) Unwrap() []error {
	if e.kind == nil {
		return []error{e.err}
	}
	return []error{e.kind, e.err}
}

// wrap names what was tried and sorts the error into the kinds that callers
// act on. It returns nil for nil.
func (e *Engine) wrap(ctx context.Context, err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	c := &callError{op: fmt.Sprintf(format, args...), err: err}
	switch {
	case ctx.Err() != nil: // the caller's own end, whatever containerd made of it
		c.err = context.Cause(ctx)
	case errdefs.IsNotFound(err):
		c.kind = spec.ErrNotFound
	case errdefs.IsUnavailable(err), errdefs.IsDeadlineExceeded(err), errors.Is(err, context.DeadlineExceeded), errdefs.IsCanceled(err):
		c.kind = spec.ErrUnavailable
		c.hint = e.whySilent(ctx, err)
	}
	return c
}

// whySilent tells a containerd that hangs from one that may not be there. Where
// the connection broke off, another may have come since.
func (e *Engine) whySilent(ctx context.Context, err error) string {
	if silence(err) {
		if pid, err := listener(ctx, e.socket()); err == nil {
			return fmt.Sprintf("containerd at %s runs, and does not answer: it hangs; `ps -o pid,stat,args -p %d` shows why (%s)", e.cfg.Address, pid, spec.ProcessStates)
		}
	}
	return fmt.Sprintf("containerd at %s does not answer: is it running?", e.cfg.Address)
}

// native is err in the terms of errdefs where containerd's client hands on what
// the server said as it came, as it does for a read of a blob that fails.
func native(err error) error {
	if _, ok := status.FromError(err); ok && err != nil {
		return errgrpc.ToNative(err)
	}
	return err
}

func isNotFound(err error) bool { return errdefs.IsNotFound(err) }
