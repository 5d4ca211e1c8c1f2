// Package world is a simulated host: engine, network, probes, store and clock
// in one value that can be printed, damaged and rewound to a crash. It is for
// tests of the orchestrator.
//
// It keeps the book on what must never happen (Violations): a signal to a
// replica that rules still send connections to, connections cut before their
// time, a route to what doesn't serve, two writers on one volume, an address
// reused too soon, a switch to a replica that lacks those who share its network.
package world

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"dunnage/spec"
)

// Behaviour is what an image does when it runs. The digest names it.
type Behaviour struct {
	ReadyAfter time.Duration // from start to serving
	NeverReady bool
	Deaf       bool          // its probes pass, but connections from outside get no answer
	DiesAfter  time.Duration // 0 = never by itself
	SickAfter  time.Duration // from start to not serving any more, while it runs; 0 = never
	ExitCode   int           // of its own death
	StopTakes  time.Duration // from SIGTERM to exit; past the grace period it is killed
}

// Lie makes an adapter tell the loop something untrue: each turns one property
// red.
type Lie string

// The lies.
const (
	Truth           Lie = ""
	LieUnnamed      Lie = "Routed says that no rule names anything"
	LieNoConns      Lie = "Connections says that there are none"
	LieHealthy      Lie = "Health says that everything is healthy"
	LieEqual        Lie = "Apply does nothing, Routed says that the rules are equal, and Reach that all is reached" // else the visitor tells
	LieNoLeftovers  Lie = "Attached lists nothing that the engine doesn't have"
	LieOldGone      Lie = "Instances leaves out what got its stop signal"
	LieNoQuarantine Lie = "the store forgets the quarantine"
	LieReached      Lie = "Reach says that everything is reached"
	LieDelivered    Lie = "Deliver changes nothing of what is there, and says that it did"
)

// ErrCrashed is what every call returns once the agent is dead.
var ErrCrashed = errors.New("the agent is dead")

// World is one simulated host. Its adapters may be called side by side.
type World struct {
	mu  sync.Mutex
	now time.Time
	Lie Lie
	// Hung is whether the engine doesn't say how the containers are.
	Hung bool
	// Healthchecks are the images' own probes, by digest. Set before Run.
	Healthchecks map[string]spec.Probe

	images     map[string]Behaviour // digest -> behaviour
	containers map[string]*container
	attached   map[string][]netip.Addr
	names      map[string]string
	kernel     spec.Routing
	flushed    bool          // somebody emptied the rules
	left       *spec.Routing // what the last Apply left; nil = nobody knows
	written    spec.Written
	conns      []*conn
	released   map[netip.Addr]time.Time // when the store forgot who had it
	targets    map[string]spec.ProbeTarget
	again      map[string]time.Time  // replica -> when it was to be probed anew
	visited    map[string]spec.Reach // by key of the target

	// Full is whether the disk has no space for another container. Set while
	// nothing runs.
	Full bool

	// Blocked are published ports that a rule of somebody else drops. Set
	// while nothing runs.
	Blocked map[uint16]bool

	// Early are published ports that a chain at a link may drop. Set while
	// nothing runs.
	Early map[uint16]bool

	// Programs are what SocketPrograms says of every process. Set while nothing runs.
	Programs []string

	// Stored is what takes room on disk beside writable layers, and Disks is where.
	Stored []spec.DiskItem
	// Waiting is what collections say waits for the end of its grace, of spec.ImageGrace.
	Waiting []spec.WaitingImage
	Disks   []spec.Filesystem
	// Collected is told what a collection has removed; it may change Disks.
	Collected func(spec.DiskUse)
	// Collections are those that were asked for.
	Collections []spec.CollectRequest
	Blobs       map[string][]spec.MissingBlob // reference -> what a pull of it downloads; set before Run
	exits       time.Duration                 // a nanosecond for each
	layers      map[string]int64              // replica -> bytes that it has written over its image

	// Locked is why secrets can't be opened; empty = they can.
	Locked    string
	delivered map[string]string // replica -> fingerprint of what is on its tmpfs
	claimed   map[string]string // what Delivered says, with LieDelivered

	state state

	calls      int // adapter calls of the present agent
	crashAt    int // the call at which it dies; 0 = never
	crashAfter bool
	dead       bool
	failEvery  int // every so many calls fail without effect; 0 = none

	Violations []string
	log        []string
	wrote      map[string][]spec.LogLine // by replica; outlives it
}

type container struct {
	key      spec.ReplicaKey
	req      spec.CreateRequest
	phase    spec.Phase
	started  time.Time
	exited   time.Time
	code     int
	stopping time.Time
	killed   bool
}

// conn is a client's connection that lives until ends.
type conn struct {
	replica    string // that answers it
	owner      string // of the address: another one, where the replica joins its network
	addr       netip.Addr
	ends       time.Time
	unroutedAt time.Time
}

// New returns an empty host.
func New(images map[string]Behaviour) *World {
	return &World{
		now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), images: images,
		containers: map[string]*container{}, attached: map[string][]netip.Addr{}, names: map[string]string{},
		released: map[netip.Addr]time.Time{}, targets: map[string]spec.ProbeTarget{}, again: map[string]time.Time{}, delivered: map[string]string{}, claimed: map[string]string{}, layers: map[string]int64{}, wrote: map[string][]spec.LogLine{}, state: newState(),
	}
}

// Now is the simulated time.
func (w *World) Now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

// Advance lets d pass: processes get ready, die and obey their signals.
func (w *World) Advance(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
	for _, id := range slices.Sorted(maps.Keys(w.containers)) {
		w.live(w.containers[id])
	}
	w.conns = slices.DeleteFunc(w.conns, func(c *conn) bool { return !w.now.Before(c.ends) })
}

// live moves a process to where it is now.
func (w *World) live(c *container) {
	if c.phase != spec.PhaseRunning {
		return
	}
	b := w.images[c.req.Image.Digest]
	switch {
	case c.killed:
		w.exit(c, 137)
	case !c.stopping.IsZero() && !w.now.Before(c.stopping.Add(b.StopTakes)):
		w.exit(c, 0)
	case b.DiesAfter > 0 && !w.now.Before(c.started.Add(b.DiesAfter)):
		w.exit(c, b.ExitCode)
	}
}

func (w *World) exit(c *container, code int) {
	w.note("%s exits with %d", c.key.ID, code)
	w.wrote[c.key.ID] = append(w.wrote[c.key.ID], spec.LogLine{At: w.now, Text: fmt.Appendf(nil, "dies with %d", code)})
	w.exits++ // no two at once, as with a clock that goes on: the loop tells exits apart by it
	c.phase, c.exited, c.code, c.killed = spec.PhaseExited, w.now.Add(w.exits), code, false
	w.conns = slices.DeleteFunc(w.conns, func(x *conn) bool { return x.replica == c.key.ID })
}

// serves reports whether the replica would answer a connection.
func (w *World) serves(id string) bool {
	c := w.containers[id]
	if c == nil || c.phase != spec.PhaseRunning {
		return false
	}
	b := w.images[c.req.Image.Digest]
	if b.SickAfter > 0 && !w.now.Before(c.started.Add(b.SickAfter)) {
		return false
	}
	return !b.NeverReady && !w.now.Before(c.started.Add(b.ReadyAfter))
}

// Traffic opens a connection through every published route, as the kernel's
// rules have it now.
func (w *World) Traffic(length time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.kernel.Published {
		for _, b := range p.Backends {
			for _, id := range w.sharing(b.Replica) {
				if w.serves(id) {
					w.conns = append(w.conns, &conn{replica: id, owner: b.Replica, addr: b.Addr, ends: w.now.Add(length)})
				}
			}
		}
	}
}

// CheckRoutes notes a violation for every route to a replica that doesn't
// serve. To be called when the loop has had its chance to react.
func (w *World) CheckRoutes() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.kernel.Services {
		for _, b := range s.Backends {
			if !w.serves(b.Replica) {
				w.violate("rules send connections for %s/%s to %s, which doesn't serve", s.Project, s.Service, b.Replica)
			}
		}
	}
}

// Served counts the backends of the service's route that serve now.
func (w *World) Served(project, service string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, s := range w.kernel.Services {
		if s.Project == project && s.Service == service {
			for _, b := range s.Backends {
				if w.serves(b.Replica) {
					n++
				}
			}
			break
		}
	}
	return n
}

// Leftovers lists what no replica in ids owns: containers, attachments,
// records and named addresses.
func (w *World) Leftovers(ids []string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for _, id := range slices.Sorted(maps.Keys(w.containers)) {
		if !slices.Contains(ids, id) {
			out = append(out, "container "+id)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(w.attached)) {
		if !slices.Contains(ids, id) {
			out = append(out, "namespace "+id)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(w.delivered)) {
		if !slices.Contains(ids, id) {
			out = append(out, "secrets of "+id)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(w.state.replicas)) {
		if !slices.Contains(ids, id) {
			out = append(out, "record "+id)
		}
	}
	return out
}

// Running lists the replicas that serve, sorted.
func (w *World) Running() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for _, id := range slices.Sorted(maps.Keys(w.containers)) {
		if w.serves(id) {
			out = append(out, id)
		}
	}
	return out
}

// Damage is something that happens to a host from outside.
func (w *World) Damage(kind, pick int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	ids := slices.Sorted(maps.Keys(w.containers))
	var id string
	if len(ids) > 0 {
		id = ids[pick%len(ids)]
	}
	switch kind % 6 {
	case 0:
		w.note("damage: rules flushed")
		w.kernel, w.flushed = spec.Routing{}, true
	case 1:
		if c := w.containers[id]; c != nil && c.phase == spec.PhaseRunning {
			w.note("damage: %s killed", id)
			w.exit(c, 137)
		}
	case 2:
		if c := w.containers[id]; c != nil {
			w.note("damage: container %s deleted", id)
			if c.phase == spec.PhaseRunning {
				w.exit(c, 137)
			}
			delete(w.containers, id)
		}
	case 3:
		w.note("damage: namespace %s deleted", id)
		delete(w.attached, id)
	case 4:
		w.note("damage: reboot")
		for _, id := range ids {
			if c := w.containers[id]; c.phase == spec.PhaseRunning || c.phase == spec.PhaseExited {
				c.phase, c.stopping, c.killed = spec.PhaseCreated, time.Time{}, false
			}
		}
		w.attached, w.kernel, w.flushed, w.left, w.conns = map[string][]netip.Addr{}, spec.Routing{}, true, nil, nil
		clear(w.delivered)
	case 5:
		if known := slices.Sorted(maps.Keys(w.state.projects)); len(known) > 0 {
			project := known[pick%len(known)]
			w.note("damage: a namespace of %s that no record knows", project)
			w.attached[project+"-ghost"] = nil
		}
	}
}

// LoseStore leaves the next agent a store of the time when only these projects
// had been deployed; of none, a new one.
func (w *World) LoseStore(but ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.note("damage: the store knows nothing but %v", but)
	lost := func(project string) bool { return !slices.Contains(but, project) }
	maps.DeleteFunc(w.state.projects, func(name string, _ spec.ProjectRecord) bool { return lost(name) })
	maps.DeleteFunc(w.state.releases, func(name string, _ map[int]spec.Release) bool { return lost(name) })
	maps.DeleteFunc(w.state.replicas, func(_ string, r spec.ReplicaRecord) bool { return lost(r.Project) })
	clear(w.state.quarantine)
	w.state.loseSecrets(lost)
}

// LoseRecords leaves the next agent a store of the time before these replicas.
func (w *World) LoseRecords(ids ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.note("damage: the store has no record of %v", ids)
	maps.DeleteFunc(w.state.replicas, func(id string, _ spec.ReplicaRecord) bool { return slices.Contains(ids, id) })
}

// Restart gives the world a fresh agent that dies at the given call (0 =
// never), before or after the call's effect, and whose calls fail every so
// often (0 = never).
func (w *World) Restart(crashAt int, after bool, failEvery int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls, w.crashAt, w.crashAfter, w.dead, w.failEvery = 0, crashAt, after, false, failEvery
	w.names, w.targets, w.visited = map[string]string{}, map[string]spec.ProbeTarget{}, nil
	clear(w.again)
	w.note("agent started")
}

// Dead reports whether the agent has reached its crash.
func (w *World) Dead() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dead
}

func (w *World) note(format string, args ...any) {
	w.log = append(w.log, fmt.Sprintf("%8.3fs ", w.now.Sub(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)).Seconds())+fmt.Sprintf(format, args...))
}

func (w *World) violate(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	w.note("VIOLATION: %s", text)
	if len(w.Violations) < 20 {
		w.Violations = append(w.Violations, text)
	}
}

// String is the history and the present state.
func (w *World) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var b strings.Builder
	for _, line := range w.log {
		fmt.Fprintln(&b, line)
	}
	for _, id := range slices.Sorted(maps.Keys(w.containers)) {
		c := w.containers[id]
		fmt.Fprintf(&b, "container %s %s code %d\n", id, c.phase, c.code)
	}
	fmt.Fprintf(&b, "attached %v\n", slices.Sorted(maps.Keys(w.attached)))
	for _, s := range w.kernel.Services {
		fmt.Fprintf(&b, "route %s/%s -> %v\n", s.Project, s.Service, s.Backends)
	}
	return b.String()
}

// call counts an adapter call and says whether it may have its effect. A call
// that kills the agent may have had it or not.
func (w *World) call(format string, args ...any) (effect bool, err error) {
	if w.dead {
		return false, ErrCrashed
	}
	w.calls++
	w.note(format, args...)
	if w.crashAt > 0 && w.calls >= w.crashAt {
		w.dead = true
		w.note("agent dies")
		return w.crashAfter, ErrCrashed
	}
	if w.failEvery > 0 && w.calls%w.failEvery == 0 {
		w.note("the call fails")
		return false, errors.New("simulated failure")
	}
	return true, nil
}
