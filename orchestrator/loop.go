package orchestrator

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// Config is what a Loop works with. Every field is required but Nonce and those
// from Pool6 on.
type Config struct {
	Engine  Engine
	Images  Images
	Disk    Disk
	Volumes Volumes
	Network Network
	Health  Health
	Visits  Visits
	Vault   Vault
	Secrets Deliverer
	Store   Store
	Clock   Clock
	Log     *slog.Logger

	// Nonce makes the nonce of a secret's version, 16 hex digits; nil = a random one.
	Nonce func() string

	StateDir string // where the store is, to name it
	RunDir   string // where replicas' namespaces and files are, to name it

	// The pools that networks and replicas of the store aren't in make the loop hold.
	Pool  netip.Prefix // IPv4 addresses for networks
	Pool6 netip.Prefix // IPv6 ones; zero = the host has no IPv6

	RemoveUnknown   bool // remove replicas of projects that the store doesn't know
	AllowPrivileged bool // services may own the host: privileged, pid: host, ipc: host

	// Budget is the ceiling in bytes of what Disk counts; 0 = none.
	Budget int64

	// KeepReleases is how many releases of a project stay for a rollback, the
	// desired one included; 0 = spec.DefaultKeepReleases.
	KeepReleases int

	// Patience is how long containerd may be silent before it is wedged; 0 = 30 s.
	Patience time.Duration

	History History // of events; nil = they are kept in memory only
	Version string  // of the agent, for people

	Notices []string // to be told with the problems for as long as the loop runs
}

// Times of the loop.
const (
	// lookTimeout bounds one look at the world. Fifty replicas take tens of
	// milliseconds; a containerd that needs longer than this is wedged.
	lookTimeout = 5 * time.Second
	// lookAnyway is the longest time between two looks: what sends no event
	// (a namespace that somebody unmounts, a lost event) is seen after it. What
	// keeps a port from being reached doesn't wait for it: netns polls that.
	lookAnyway = 2 * time.Second
	// afterFailure keeps a failing action from spinning the loop.
	afterFailure = 100 * time.Millisecond
)

// Loop keeps what releases declare true. Run owns every change; the other
// methods may be called from anywhere.
type Loop struct {
	cfg   Config
	state *state
	alloc allocator
	began time.Time

	wake     chan struct{}
	requests chan func()
	events   *events
	samples  samples // of usage
	ops      *operations
	receipts *receipts
	measures *measures
	status   atomic.Pointer[spec.Status]
	looked   chan struct{}                // closed by the first look
	acting   chan struct{}                // closed by the first look after which it may act
	held     atomic.Pointer[string]       // why the loop doesn't act
	tight    atomic.Pointer[shortness]    // nil = the disk isn't short; written by what collects, one at a time
	nearly   atomic.Pointer[string]       // that the budget is nearly used; nil = it isn't, or is used up: see tight
	routing  atomic.Pointer[spec.Routing] // as planned last

	committed atomic.Pointer[time.Time] // when rules were committed last
	unapplied atomic.Pointer[error]     // why they couldn't be when that was tried last; nil = they were
	lost      map[[2]string]string      // project and service -> the address that it can't be reached at; Run's

	// Where to visit once the rules of the plan are committed, and what the
	// visitor was told last without any to come.
	planned, reachable atomic.Pointer[[]spec.VisitTarget]

	ctx  context.Context // of the agent: operations outlive the request that began them
	jobs sync.WaitGroup  // operations that pull

	// recording serialises read, change and save of replica records among the
	// actions of a wave: two creates must not pick the same address.
	recording sync.Mutex

	vault    sync.RWMutex // held to change secrets or keys, and shared to open any
	auditing sync.Mutex   // held from reading the audit's last hash to saving the next

	memory // owned by Run's goroutine
	waves  waves
	guard  *guard
	beat   atomic.Int64   // when the loop came round last
	blind  atomic.Int64   // looks in a row that the engine didn't answer
	hung   map[string]int // replica -> its shim that hangs, as told; Run's

	leftDead  map[string]string     // "project/service" -> why it won't get ready by itself, as told; Run's
	unwritten map[string]toldWriter // by replica; Run's
	unkept    string                // why events aren't kept, as told; Run's
	oom       map[string]toldOOM    // by replica; Run's
}

// memory is what the loop learns by looking and may lose: after a restart the
// next looks find it again, at worst by beginning a drain anew.
type memory struct {
	applied  spec.Routing         // last routing that Apply reported done, at first that of an earlier agent
	draining map[string]time.Time // replica -> first seen running and unnamed with connections
	stopping map[string]time.Time // replica -> stop signal sent
	routed   map[string]time.Time // replica -> a rule was first seen to name its present process
	names    map[string]string    // replica -> fingerprint of its hosts file
	failures map[string]failure   // replica -> failed actions on it
	renewing map[string]time.Time // project -> when to try again to bring it new versions of secrets
	shown    map[string]spec.ReplicaState
	late     map[string]time.Time // replica -> start of the run that was told of as not ready yet
	absent   map[string]plan.Absence
	pulling  map[string]bool      // image -> a repair pull runs
	laid     bool                 // what applied says is what was left to the kernel
	own      bool                 // an Apply of this agent is done
	mending  map[string]repair    // replica -> its repair under way; "" = of rules and routes
	fights   map[string]*fight    // by what is damaged
	problem  string               // what keeps the loop from looking
	troubles []string             // what has, and was told of, since it last looked
	trusted  bool                 // the store has known all that was here
	appeared string               // what it doesn't know and has come since, one line
	foreign  []string             // what others have set up against our traffic
	around   map[string]neighbour // the same, with what has been told of it
	failed   bool                 // some action of the last wave failed
	letGone  bool                 // what was retained for no release is let go
	written  spec.Written         // to the kernel's tables, when that was asked last
	collects collecting           // what was asked of the disk
	layers   layers
}

type failure struct {
	count  int
	at     time.Time
	text   string
	limits string // fingerprint of the limits that couldn't be set
	space  bool   // the disk had none for it
}

// New loads the store and returns a loop that does nothing until Run. What it
// will begin ends with ctx.
func New(ctx context.Context, cfg Config) (*Loop, error) {
	st, err := loadState(cfg.Store)
	if err != nil {
		return nil, err
	}
	cfg.KeepReleases = cmp.Or(cfg.KeepReleases, spec.DefaultKeepReleases)
	if cfg.Nonce == nil {
		cfg.Nonce = newNonce
	}
	l := &Loop{
		ctx: ctx, cfg: cfg, state: st, began: cfg.Clock.Now(),
		alloc:    allocator{pool: cfg.Pool, pool6: cfg.Pool6, state: st},
		wake:     make(chan struct{}, 1),
		requests: make(chan func()),
		looked:   make(chan struct{}),
		acting:   make(chan struct{}),
		guard:    newGuard(cmp.Or(cfg.Patience, defaultPatience)),
		events:   newEvents(cfg.Clock, cfg.History),
		ops:      newOperations(cfg.Clock),
		measures: newMeasures(),
		memory: memory{
			draining: map[string]time.Time{}, stopping: map[string]time.Time{}, names: map[string]string{}, routed: map[string]time.Time{},
			failures: map[string]failure{}, renewing: map[string]time.Time{}, shown: map[string]spec.ReplicaState{}, pulling: map[string]bool{},
			mending: map[string]repair{}, fights: map[string]*fight{},
		},
	}
	for _, notice := range cfg.Notices {
		cfg.Log.Warn("notice", "problem", notice)
		l.events.add(spec.Event{Kind: spec.EventProblem, Message: notice})
	}
	l.applied, l.laid = cfg.Network.Left()
	for _, s := range l.applied.Services { // those that still are ready were told of by the agent before
		for _, b := range s.Backends {
			l.shown[b.Replica] = spec.StateReady
		}
	}
	l.receipts = newReceipts(cfg.Clock, cfg.Visits.Tally, l.tellEnd, st.unsettled)
	l.status.Store(&spec.Status{At: l.began, Started: l.began})
	l.routing.Store(&spec.Routing{})
	l.beats()
	return l, l.openVault()
}

// Look asks for another look soon. It never blocks.
func (l *Loop) Look() {
	select {
	case l.wake <- struct{}{}:
	default: // one is asked for already
	}
}

// Run looks and acts until the loop's context ends, then waits for what it
// began. Containers and rules stay as they are.
func (l *Loop) Run() {
	ctx := l.ctx
	defer l.jobs.Wait()
	l.jobs.Go(l.verifyImages)
	changes, damages := l.cfg.Engine.Changes(ctx), l.cfg.Network.Changes(ctx)
	var requests chan func() // nil until the first look: before it nobody knows whether to change anything
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-l.wake:
		case _, ok := <-changes:
			if !ok {
				changes = nil
			}
		case _, ok := <-damages:
			if !ok {
				damages = nil
			}
		case f := <-requests:
			l.beats()
			f()
		}
		timer.Reset(inStep(time.Now(), l.Step(ctx)))
		if l.hasLooked() {
			requests = l.requests
		}
	}
}

// inStep moves the look of a host at rest to a full second, when probes and
// visits come too: to wake up costs the agent about as much as one of these.
func inStep(now time.Time, wait time.Duration) time.Duration {
	if wait < lookAnyway {
		return wait
	}
	return now.Truncate(lookAnyway).Add(lookAnyway).Sub(now)
}

// Step looks, does one wave and returns how long nothing need be looked at.
// Run calls it; tests may instead.
func (l *Loop) Step(ctx context.Context) time.Duration {
	l.beats()
	l.takeLate(ctx)
	slow := time.AfterFunc(slowLook, l.quicken)
	began := time.Now()
	observed, err := l.observe(ctx)
	slow.Stop()
	l.measures.looked(time.Since(began), err)
	if err != nil {
		l.quicken() // no plan does
		l.trouble(err)
		return afterFailure
	}
	l.trouble(nil)
	l.lookAround(ctx)
	l.weigh(observed)
	l.hold(&observed)
	observed.Visits = l.visited()
	began = time.Now()
	p := plan.Make(l.state.desired(), observed)
	l.measures.planned(time.Since(began))
	l.absent = p.Absent
	l.publish(p, observed)
	if observed.Held { // nothing from here on may happen then: also visits make what they need on the host
		return lookAnyway
	}
	l.acts()
	l.visit(p)
	l.sweep(ctx)
	l.letGo(ctx)
	l.collectSometimes()
	l.finishDowns(observed)
	l.reckon(p, observed)
	if l.settle(p, observed) {
		return 0 // the plan is for what was desired before
	}
	if l.renew() {
		return 0
	}
	l.failed = false
	actions, due := l.mend(ctx, p, observed)
	begun := l.execute(ctx, actions)
	if p.Wake.IsZero() || !due.IsZero() && due.Before(p.Wake) {
		p.Wake = due
	}
	switch {
	case l.failed:
		return afterFailure
	case begun > 0:
		return 0 // their effects are to be seen
	case p.Wake.IsZero():
		return lookAnyway
	default:
		return min(max(p.Wake.Sub(l.cfg.Clock.Now()), time.Millisecond), lookAnyway)
	}
}

// trouble notes what keeps the loop from looking, once for each cause.
func (l *Loop) trouble(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text == l.problem {
		return
	}
	l.problem = text
	if text == "" {
		l.cfg.Log.Info("looking again")
		for _, was := range l.troubles { // a silent containerd and one that refuses connections are two on the way to one that answers
			what, _ := spec.SplitProblem(was)
			l.events.add(spec.Event{Kind: spec.EventRepaired, Message: "no longer: " + what})
		}
		l.troubles = nil
		return
	}
	if !slices.Contains(l.troubles, text) {
		l.troubles = append(l.troubles, text)
		l.cfg.Log.Error("can't look", "error", text)
		l.events.add(spec.Event{Kind: spec.EventProblem, Message: text})
	}
	s := *l.status.Load()
	s.Problems = []string{text}
	l.status.Store(&s)
}

// lookAround asks what others have set up that may stop our traffic. It is
// told, not fought.
func (l *Loop) lookAround(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	problems, err := l.cfg.Network.Problems(limited)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		problems = []string{fmt.Sprintf("can't look for foreign rules: %v; the agent goes on trying, and its log says more", err)}
	}
	l.tellAround(problems)
	l.foreign = problems
}

// aroundPatience is how long what others have set up has to be there before it
// is an event: who lays rules anew flushes ours first, and until these are back
// a dropping policy looks like the end of all traffic.
const aroundPatience = time.Second

// tellAround tells what is new around us, and of what was told that it is gone.
func (l *Loop) tellAround(problems []string) {
	now := l.cfg.Clock.Now()
	before := l.around
	l.around = map[string]neighbour{}
	for _, p := range problems {
		n, known := before[p]
		if !known {
			n.since = now
		}
		if !n.told && now.Sub(n.since) >= aroundPatience {
			n.told = true
			l.cfg.Log.Warn("foreign rules", "problem", p)
			l.events.add(spec.Event{Kind: spec.EventProblem, Message: p})
		}
		l.around[p] = n
	}
	for _, p := range slices.Sorted(maps.Keys(before)) {
		if _, still := l.around[p]; !still && before[p].told {
			what, _ := spec.SplitProblem(p)
			l.events.add(spec.Event{Kind: spec.EventRepaired, Message: "no longer: " + what})
		}
	}
}

// neighbour is something that others have set up.
type neighbour struct {
	since time.Time
	told  bool
}

// do runs f on the loop's goroutine and returns its error.
func (l *Loop) do(ctx context.Context, f func() error) error {
	done := make(chan error, 1)
	began := time.Now()
	select {
	case l.requests <- func() { done <- f() }:
		return <-done
	case <-ctx.Done():
	case <-l.ctx.Done():
	}
	return l.unanswered(ctx, time.Since(began))
}
