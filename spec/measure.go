package spec

import (
	"maps"
	"slices"
	"sort"
	"time"
)

// Histogram counts durations by their length, as Prometheus' histograms do. The
// zero value counts without telling lengths apart.
type Histogram struct {
	Bounds []Duration // growing; not changed, so that copies may share it
	Counts []uint64   // by bound: durations of at most that and more than the bound before; what is longer is in Count alone
	Count  uint64
	Sum    Duration
}

// NewHistogram returns an empty one with these bounds.
func NewHistogram(bounds []Duration) Histogram {
	return Histogram{Bounds: bounds, Counts: make([]uint64, len(bounds))}
}

// Observe counts d.
func (h *Histogram) Observe(d time.Duration) {
	h.Count++
	h.Sum += Duration(d)
	if i := sort.Search(len(h.Bounds), func(i int) bool { return Duration(d) <= h.Bounds[i] }); i < len(h.Bounds) {
		h.Counts[i]++
	}
}

// Clone is a copy that doesn't change with h.
func (h Histogram) Clone() Histogram {
	h.Counts = slices.Clone(h.Counts)
	return h
}

func bounds(all ...time.Duration) (out []Duration) {
	for _, d := range all {
		out = append(out, Duration(d))
	}
	return out
}

// Bounds of histograms.
var (
	// CallBounds are for what a program answers: a probe, a visit, containerd.
	CallBounds = bounds(time.Millisecond, 2500*time.Microsecond, 5*time.Millisecond, 10*time.Millisecond, 25*time.Millisecond,
		100*time.Millisecond, 250*time.Millisecond, time.Second, 2500*time.Millisecond, 10*time.Second)
	// WorkBounds are for what the agent does itself.
	WorkBounds = bounds(time.Millisecond, 5*time.Millisecond, 10*time.Millisecond, 25*time.Millisecond, 50*time.Millisecond,
		100*time.Millisecond, 250*time.Millisecond, time.Second, 5*time.Second)
	// DeployBounds are for what a person waits for.
	DeployBounds = bounds(time.Second, 2*time.Second, 5*time.Second, 10*time.Second, 30*time.Second, time.Minute,
		2*time.Minute, 5*time.Minute, 15*time.Minute, time.Hour)
)

// Counted is what the loop has counted since the agent began.
type Counted struct {
	Operations map[OperationCount]uint64 // that have ended; zero for what is at work
	Durations  map[string]Histogram      // of those, by their kind
	Events     map[EventKind]uint64
	Repairs    map[DamageKind]uint64

	Look, Plan Histogram
	Unseeing   uint64 // looks that failed
	Actions    map[ActionCount]Histogram

	Written Written
	Swap    Histogram // of rules that changed: from the comparison to the sweep after the commits

	Collected      DiskUse // what collections have freed
	EngineRestarts uint64  // of a containerd that was wedged, or died
}

// OperationCount tells ended operations apart.
type OperationCount struct {
	Project string
	Kind    string // Operation.Kind
	Outcome OperationState
}

// ActionCount tells the actions of the loop apart.
type ActionCount struct {
	Action string // create, start, apply, drain ...
	Failed bool
}

// Clone is a copy that doesn't change with c.
func (c Counted) Clone() Counted {
	c.Operations, c.Events, c.Repairs = maps.Clone(c.Operations), maps.Clone(c.Events), maps.Clone(c.Repairs)
	c.Durations = maps.Clone(c.Durations)
	//arch:unordered each is copied for itself
	for kind, h := range c.Durations {
		c.Durations[kind] = h.Clone()
	}
	c.Actions = maps.Clone(c.Actions)
	//arch:unordered each is copied for itself
	for k, h := range c.Actions {
		c.Actions[k] = h.Clone()
	}
	c.Look, c.Plan, c.Swap = c.Look.Clone(), c.Plan.Clone(), c.Swap.Clone()
	return c
}

// VisitCount is what the visits of a service's addresses have found since the
// agent began. As in receipts, those before the first that was answered don't count.
type VisitCount struct {
	Project, Service string
	Answered         Histogram // how long those took that were answered
	Failed           uint64
}

// ProbeCount is what the probes of a service's replicas have found since the
// agent began.
type ProbeCount struct {
	Project, Service string
	Kind             ProbeKind
	Passed           uint64
	Failed           uint64 // of replicas that had passed before: while they start, failures are expected
}

// CallCount is about the calls to containerd of one group, since the agent began.
type CallCount struct {
	Group    string
	Took     Histogram // of all
	Failed   uint64    // with an error that isn't an answer, such as one that there is no such container
	TimedOut uint64    // of those: without an answer in their time
}

// ConntrackFill is how full the kernel's table of connections is.
type ConntrackFill struct {
	Entries int64
	Limit   int64 // new connections are dropped at it
}
