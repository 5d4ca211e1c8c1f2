package apitest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"dunnage/api"
	"dunnage/spec"
)

// Fake is a Backend in memory. Time stands still at Now and moves by a second
// with each event. The exported fields are set before the first call.
type Fake struct {
	Now time.Time

	mu         sync.Mutex
	changed    *sync.Cond
	projects   map[string]*project
	operations map[string]*spec.Operation
	events     []spec.Event
	lines      []spec.LogLine
	images     []spec.Image
	rules      spec.RuleSet
	findings   []spec.Finding
	calls      []string
	failNext   string // cause of the next operation's failure
	refuseNext error
	panicNext  bool
	hold       bool
	held       []func()
	secrets    map[spec.SecretID]*secret
	lock       lock
	entries    []spec.AuditEntry
	problems   []string // of the agent
	collected  bool
}

var _ api.Backend = (*Fake)(nil)

type project struct {
	releases []spec.Release // oldest first
	stopped  map[string]bool
	details  map[string]string // by service: what its replicas say of themselves
	trials   map[string]int    // by service: how many replicas are on trial
	causes   map[int]string    // why releases failed
	receipts []spec.Receipt    // oldest first
}

// New makes a Fake without projects.
func New() *Fake {
	f := &Fake{
		Now:        time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC),
		projects:   map[string]*project{},
		operations: map[string]*spec.Operation{},
		secrets:    map[spec.SecretID]*secret{},
		lock:       lock{source: "file /var/lib/dunnage/secrets.key"},
		rules:      spec.RuleSet{Rendered: "*nat\nCOMMIT\n", Kernel: "*nat\nCOMMIT\n"},
	}
	f.changed = sync.NewCond(&f.mu)
	return f
}

// RefuseNext makes the next changing call return err.
func (f *Fake) RefuseNext(err error) { f.locked(func() { f.refuseNext = err }) }

// FailNext makes the next operation fail: rolled back if the project has an
// earlier release, else failed.
func (f *Fake) FailNext(cause string) { f.locked(func() { f.failNext = cause }) }

// PanicNext makes the next Status panic.
func (f *Fake) PanicNext() { f.locked(func() { f.panicNext = true }) }

// Hold keeps the operations that start from now on rolling until Release.
func (f *Fake) Hold() { f.locked(func() { f.hold = true }) }

// Release lets held operations end.
func (f *Fake) Release() {
	f.locked(func() {
		f.hold = false
		for _, end := range f.held {
			end()
		}
		f.held = nil
	})
}

// SetDetail makes a service's replicas unhealthy with this last error.
func (f *Fake) SetDetail(projectName, service, detail string) {
	f.locked(func() { f.projects[projectName].details[service] = detail })
}

// SetTrial puts so many replicas of a service on trial.
func (f *Fake) SetTrial(projectName, service string, replicas int) {
	f.locked(func() { f.projects[projectName].trials[service] = replicas })
}

// SetRules sets what Rules returns.
func (f *Fake) SetRules(r spec.RuleSet) { f.locked(func() { f.rules = r }) }

// AddLine appends a log line, which followers get.
func (f *Fake) AddLine(l spec.LogLine) {
	f.locked(func() {
		f.lines = append(f.lines, l)
		f.changed.Broadcast()
	})
}

// AddEvent appends an event, numbering it.
func (f *Fake) AddEvent(e spec.Event) { f.locked(func() { f.emit(e) }) }

// Calls lists the changing calls so far.
func (f *Fake) Calls() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.calls)
}

// String prints the state, one project a line.
func (f *Fake) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(f.projects)) {
		p := f.projects[name]
		r := p.releases[len(p.releases)-1]
		fmt.Fprintf(&b, "%s release=%d", name, r.Number)
		for _, s := range r.Project.Services {
			fmt.Fprintf(&b, " %s=%d(%s)", s.Name, s.Replicas, s.Container.Image)
			if p.stopped[s.Name] {
				b.WriteString("stopped")
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func (f *Fake) names() string { return strings.Join(slices.Sorted(maps.Keys(f.projects)), ", ") }

func (f *Fake) locked(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

// emit appends an event; mu is held.
func (f *Fake) emit(e spec.Event) {
	e.Seq = uint64(len(f.events) + 1)
	if e.At.IsZero() {
		e.At = f.Now.Add(time.Duration(e.Seq) * time.Second)
	}
	f.events = append(f.events, e)
	f.changed.Broadcast()
}

// refused returns the error that RefuseNext asked for; mu is held.
func (f *Fake) refused() error {
	err := f.refuseNext
	f.refuseNext = nil
	return err
}

// wait waits, with mu held, for a change or the end of ctx.
func (f *Fake) wait(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { f.locked(f.changed.Broadcast) })
	defer stop()
	if ctx.Err() == nil {
		f.changed.Wait()
	}
	return ctx.Err()
}

// Operation implements api.Backend.
func (f *Fake) Operation(_ context.Context, id string) (spec.Operation, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	op, ok := f.operations[id]
	if !ok {
		return spec.Operation{}, fmt.Errorf("operation %q: %w", id, spec.ErrNotFound)
	}
	return *op, nil
}

// Events implements api.Backend.
func (f *Fake) Events(ctx context.Context, r spec.EventRequest, send func(spec.Event) error) error {
	since := r.After
	for {
		if !r.Follow && !f.hasEvent(since) {
			return nil
		}
		e, err := f.nextEvent(ctx, since)
		if err != nil {
			return err
		}
		since = e.Seq
		if !r.Wants(e) {
			continue
		}
		if err := send(e); err != nil {
			return err
		}
	}
}

func (f *Fake) hasEvent(after uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return uint64(len(f.events)) > after
}

func (f *Fake) nextEvent(ctx context.Context, since uint64) (spec.Event, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for uint64(len(f.events)) <= since {
		if err := f.wait(ctx); err != nil {
			return spec.Event{}, err
		}
	}
	return f.events[since], ctx.Err()
}

// Logs implements api.Backend.
func (f *Fake) Logs(ctx context.Context, r spec.LogRequest, send func(spec.LogLine) error) error {
	f.mu.Lock()
	_, ok := f.projects[r.Project]
	lines := f.selectLines(r, 0)
	next := len(f.lines)
	f.mu.Unlock()
	if !ok {
		return fmt.Errorf("project %s: %w; projects here: %s", r.Project, spec.ErrNotFound, f.names())
	}
	if r.Tail >= 0 && len(lines) > r.Tail {
		lines = lines[len(lines)-r.Tail:]
	}
	for {
		for _, l := range lines {
			if err := send(l); err != nil {
				return err
			}
		}
		if !r.Follow {
			return nil
		}
		f.mu.Lock()
		for len(f.lines) == next {
			if err := f.wait(ctx); err != nil {
				f.mu.Unlock()
				return err
			}
		}
		lines = f.selectLines(r, next)
		next = len(f.lines)
		f.mu.Unlock()
	}
}

func (f *Fake) selectLines(r spec.LogRequest, from int) (out []spec.LogLine) {
	pattern, err := r.Pattern()
	if err != nil {
		return nil // the server has refused it
	}
	for _, l := range f.lines[from:] {
		inTime := !l.At.Before(r.Since) && (r.Until.IsZero() || !l.At.After(r.Until))
		if r.Wants(l.Service, l.Replica) && inTime && pattern.Match(l.Text) {
			out = append(out, l)
		}
	}
	return out
}

// Networks implements api.Backend.
func (f *Fake) Networks(context.Context) ([]spec.NetworkStatus, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []spec.NetworkStatus
	for i, name := range slices.Sorted(maps.Keys(f.projects)) {
		p := f.projects[name]
		n := spec.NetworkStatus{Project: name}
		n.ID, n.Subnet = spec.NetworkID(name, "default"), prefix(i)
		for j, s := range p.releases[len(p.releases)-1].Project.Services {
			n.Services = append(n.Services, spec.ServiceAddress{Service: s.Name, Addr: address(i, 200+j)})
		}
		out = append(out, n)
	}
	return out, nil
}

// Rules implements api.Backend.
func (f *Fake) Rules(context.Context) (spec.RuleSet, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rules, nil
}
