package metrics

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"dunnage/spec"
)

// Sources are where the numbers come from. All may be called at any time, from
// several goroutines, and answer within milliseconds; only Disk may take longer.
type Sources struct {
	Version   string
	Status    func(context.Context) (spec.Status, error)
	Counted   func() spec.Counted
	Latency   func() (took time.Duration, answers bool) // of containerd
	Reach     func() []spec.Reach
	Visits    func() []spec.VisitCount
	Probes    func() []spec.ProbeCount
	Calls     func() []spec.CallCount
	Conntrack func() (spec.ConntrackFill, error)
	Usage     func(context.Context) ([]spec.Usage, error)
	Disk      func(context.Context) (spec.DiskReport, error)
	StoreSize func() (int64, error)
}

const (
	// maxSeries bounds an answer. A thousand replicas of a hundred services have
	// fewer; what has more would cost Prometheus more than it tells anybody.
	maxSeries = 20000
	// patience is how long an answer waits for its sources, all together.
	patience = 3 * time.Second
)

// collector makes an answer of the sources. It is a prometheus.Collector.
type collector struct {
	src   Sources
	log   *slog.Logger
	limit int

	mu    sync.Mutex // one answer at a time
	used  used
	disks disks
}

func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, f := range families {
		out <- f.desc
	}
}

// Collect never panics: it would take the agent with it.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer func() {
		if v := recover(); v != nil {
			out <- prometheus.NewInvalidMetric(problems.desc, fmt.Errorf("the agent failed to count: %v", v))
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s := &sheet{out: out, left: c.limit - 1}
	n := c.src.Counted()
	c.agent(s, n)
	c.kernel(s)
	c.engine(s)
	c.disk(s)
	st, err := c.src.Status(ctx)
	c.looks(s, st, err)
	c.ended(s, n.Operations, st)
	c.projects(s, st)
	c.clients(s)
	c.replicas(ctx, s, st)
	out <- prometheus.MustNewConstMetric(cutSeries.desc, prometheus.GaugeValue, float64(s.cut))
}

func (c *collector) agent(s *sheet, n spec.Counted) {
	s.number(buildInfo, 1, c.src.Version, runtime.Version())
	s.histogram(lookTime, n.Look)
	s.number(unseeing, float64(n.Unseeing))
	s.histogram(planTime, n.Plan)
	s.histogram(swapTime, n.Swap)
	s.number(commits, float64(n.Written.Commits))
	s.number(changedRules, float64(n.Written.Rules.Added), "added")
	s.number(changedRules, float64(n.Written.Rules.Removed), "removed")
	for _, kind := range spec.DamageKinds {
		s.number(repairs, float64(n.Repairs[kind]), string(kind))
	}
	s.number(engineRestarts, float64(n.EngineRestarts))
	s.number(diskCollected, float64(n.Collected.Bytes))
	for _, kind := range spec.EventKinds { // those of which there was none too: Prometheus sees no first one else
		s.number(events, float64(n.Events[kind]), string(kind))
	}
	for kind, h := range n.Durations {
		s.histogram(operationTime, h, kind)
	}
	for k, h := range n.Actions {
		outcome := "done"
		if k.Failed {
			outcome = "failed"
		}
		s.summary(actions, h, k.Action, outcome)
	}
	if size, err := c.src.StoreSize(); err == nil {
		s.number(storeSize, float64(size))
	}
}

// ended tells of operations. Of a deployed project, and of each kind that is at
// work or has ended, there are series before one ends so, since Prometheus can't
// see that one grew which wasn't there.
func (c *collector) ended(s *sheet, counts map[spec.OperationCount]uint64, st spec.Status) {
	born := slices.Collect(maps.Keys(counts))
	for _, p := range st.Projects {
		born = append(born, spec.OperationCount{Project: p.Name, Kind: "deploy"})
	}
	counts = maps.Clone(counts)
	if counts == nil {
		counts = map[spec.OperationCount]uint64{}
	}
	for _, k := range born {
		for _, k.Outcome = range []spec.OperationState{spec.OperationDone, spec.OperationFailed, spec.OperationRolledBack} {
			counts[k] += 0
		}
	}
	order := func(a, b spec.OperationCount) int {
		return cmp.Or(cmp.Compare(a.Project, b.Project), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Outcome, b.Outcome))
	}
	for _, k := range slices.SortedFunc(maps.Keys(counts), order) {
		s.number(operations, float64(counts[k]), k.Project, k.Kind, string(k.Outcome))
	}
}

func (c *collector) looks(s *sheet, st spec.Status, err error) {
	found := len(st.Problems)
	if err != nil && found == 0 { // no look has ended yet
		found = 1
	}
	s.number(problems, float64(found))
	if err == nil {
		s.number(lastLook, timestamp(st.At))
	}
}

func (c *collector) kernel(s *sheet) {
	fill, err := c.src.Conntrack()
	if err != nil { // a kernel without
		return
	}
	s.number(tracked, float64(fill.Entries))
	s.number(trackedAtMost, float64(fill.Limit))
}

func (c *collector) engine(s *sheet) {
	took, answers := c.src.Latency()
	s.yes(engineUp, answers)
	if took > 0 {
		s.number(engineLatency, seconds(took))
	}
	for _, n := range c.src.Calls() {
		s.histogram(calls, n.Took, n.Group)
		s.number(callsFailed, float64(n.Failed), n.Group)
		s.number(callsTimedOut, float64(n.TimedOut), n.Group)
	}
}

func (c *collector) projects(s *sheet, st spec.Status) {
	for _, p := range st.Projects {
		s.number(release, float64(p.Release), p.Name)
		s.yes(rolling, p.Rolling, p.Name)
		s.yes(paused, p.Paused != "", p.Name)
		for _, sv := range p.Services {
			c.service(s, p.Name, sv)
		}
	}
}

func (c *collector) service(s *sheet, project string, sv spec.ServiceStatus) {
	n := sv.Wanted
	if sv.Stopped {
		n = 0
	}
	s.number(wanted, float64(n), project, sv.Name)
	s.number(ready, float64(sv.Ready), project, sv.Name)
	s.yes(converged, sv.Waiting == "", project, sv.Name)
	s.yes(unreachable, sv.Unreachable != "", project, sv.Name)
	s.yes(held, !sv.HeldUntil.IsZero(), project, sv.Name)
	states := map[spec.ReplicaState]int{}
	lost := 0
	for _, r := range sv.Replicas {
		states[r.State]++
		if r.Unwritten {
			lost++
		}
	}
	s.number(unwritten, float64(lost), project, sv.Name)
	for _, state := range slices.Sorted(maps.Keys(states)) {
		s.number(replicas, float64(states[state]), project, sv.Name, string(state))
	}
}

// clients tells what visits and probes have found. Of several addresses with the
// same labels, as a service has one in each network, the unreachable one counts.
func (c *collector) clients(s *sheet) {
	type key struct{ project, service, from, port, family string }
	found := map[key]bool{}
	for _, r := range c.src.Reach() {
		if r.State == spec.ReachUnknown || r.Absent {
			continue
		}
		k := key{r.Project, r.Service, "outside", "", "ipv4"}
		if r.From != spec.FromOutside {
			k.from = string(r.From)
		}
		if r.Port > 0 {
			k.port = strconv.Itoa(int(r.Port))
		}
		if r.Addr.Addr().Unmap().Is6() {
			k.family = "ipv6"
		}
		is := r.State == spec.ReachReachable
		if before, known := found[k]; known {
			is = is && before
		}
		found[k] = is
	}
	for k, is := range found {
		s.yes(reachable, is, k.project, k.service, k.from, k.port, k.family)
	}
	for _, n := range c.src.Visits() {
		s.number(visits, float64(n.Answered.Count+n.Failed), n.Project, n.Service)
		s.number(visitFailed, float64(n.Failed), n.Project, n.Service)
		s.histogram(visitTime, n.Answered, n.Project, n.Service)
	}
	for _, n := range c.src.Probes() {
		s.number(probes, float64(n.Passed), n.Project, n.Service, string(n.Kind), "passed")
		s.number(probes, float64(n.Failed), n.Project, n.Service, string(n.Kind), "failed")
	}
}
