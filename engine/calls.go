package engine

import (
	"cmp"
	"context"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"dunnage/spec"
)

// calls counts the calls to containerd and how long they take, by group.
type calls struct {
	mu     sync.Mutex
	groups map[string]*spec.CallCount
}

func newCalls() *calls { return &calls{groups: map[string]*spec.CallCount{}} }

// groupOf is a method's group: its service, "tasks", and for the calls that may
// rightly take long the method too, "tasks.create". There are fewer than thirty.
// It is empty for a call that waits for an event.
func groupOf(method string) string {
	service, name := path.Split(method)
	service = strings.TrimSuffix(service, "/")
	group := strings.ToLower(service[strings.LastIndexByte(service, '.')+1:])
	slow, known := slowMethods[method]
	switch {
	case known && slow == 0:
		return ""
	case known:
		return group + "." + strings.ToLower(name)
	default:
		return group
	}
}

// noAnswer reports whether an error says that containerd couldn't, and not just
// that what was asked for isn't so.
func noAnswer(c codes.Code) bool {
	switch c {
	case codes.OK, codes.Canceled, codes.NotFound, codes.AlreadyExists, codes.FailedPrecondition, codes.InvalidArgument, codes.Unimplemented, codes.OutOfRange:
		return false
	default:
		return true
	}
}

// measured is an interceptor around the one that sets deadlines.
func (c *calls) measured(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	began := time.Now()
	err := invoke(ctx, method, req, reply, cc, opts...)
	c.note(method, time.Since(began), status.Code(err))
	return err
}

func (c *calls) note(method string, took time.Duration, code codes.Code) {
	group := groupOf(method)
	if group == "" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.groups[group]
	if n == nil {
		n = &spec.CallCount{Group: group, Took: spec.NewHistogram(spec.CallBounds)}
		c.groups[group] = n
	}
	n.Took.Observe(took)
	if noAnswer(code) {
		n.Failed++
	}
	if code == codes.DeadlineExceeded {
		n.TimedOut++
	}
}

// Calls says what calls to containerd there have been so far, sorted by group.
func (e *Engine) Calls() []spec.CallCount {
	e.calls.mu.Lock()
	defer e.calls.mu.Unlock()
	all := make([]spec.CallCount, 0, len(e.calls.groups))
	for _, n := range e.calls.groups {
		one := *n
		one.Took = one.Took.Clone()
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b spec.CallCount) int { return cmp.Compare(a.Group, b.Group) })
	return all
}
