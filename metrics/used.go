package metrics

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strconv"

	"dunnage/spec"
)

// slot is a replica's place in its service: generations come and go in it.
type slot struct {
	project, service string
	number           int
}

// used adds up what replicas have used by slot. The kernel counts for each
// process; when one generation follows another, or comes back warm, the sum of
// what there is would jump, and Prometheus take the jump for use.
type used struct {
	begun  bool
	before map[string]spec.Usage // by replica, as seen last
	sums   map[slot]spec.Usage   // counters since the first answer
}

// take adds what was used since the last answer. What was used before the first
// one isn't known to belong to this agent's time, and isn't counted.
func (u *used) take(now []spec.Usage, at map[string]slot) {
	sums, before := map[slot]spec.Usage{}, make(map[string]spec.Usage, len(now))
	for _, n := range now {
		where, known := at[n.Replica]
		if !known {
			continue
		}
		before[n.Replica] = n
		was, seen := u.before[n.Replica]
		if !seen && !u.begun {
			was = n
		}
		if _, taken := sums[where]; !taken {
			sums[where] = u.sums[where]
		}
		sum := sums[where]
		sum.CPU += since(was.CPU, n.CPU)
		sum.Throttled += since(was.Throttled, n.Throttled)
		sum.Received += since(was.Received, n.Received)
		sum.Sent += since(was.Sent, n.Sent)
		sum.Read += since(was.Read, n.Read)
		sum.Written += since(was.Written, n.Written)
		sums[where] = sum
	}
	for _, where := range at { // one that doesn't run for a moment keeps its sums
		if sum, had := u.sums[where]; had && sums[where] == (spec.Usage{}) {
			sums[where] = sum
		}
	}
	u.begun, u.before, u.sums = true, before, sums
}

// since is what a counter has counted; one that is lower began anew.
func since[N ~int64](was, now N) N {
	if now < was {
		return now
	}
	return now - was
}

func (c *collector) replicas(ctx context.Context, s *sheet, st spec.Status) {
	at := map[string]slot{}
	again := map[slot]int{}
	for _, p := range st.Projects {
		for _, sv := range p.Services {
			for _, r := range sv.Replicas {
				where := slot{r.Project, r.Service, r.Number}
				at[r.Replica] = where
				// Of two generations the one that was restarted more often: the sum would go back with
				// either's end, which would look like restarts.
				again[where] = max(again[where], r.Restarts)
			}
		}
	}
	order := func(a, b slot) int {
		return cmp.Or(cmp.Compare(a.project, b.project), cmp.Compare(a.service, b.service), cmp.Compare(a.number, b.number))
	}
	slots := slices.SortedFunc(maps.Keys(again), order)
	for _, k := range slots {
		s.number(restarts, float64(again[k]), k.project, k.service, strconv.Itoa(k.number))
	}
	now, err := c.src.Usage(ctx)
	if err != nil {
		c.log.Debug("metrics: what replicas use", "error", err)
		return
	}
	c.used.take(now, at)
	gauges := map[slot]spec.Usage{}
	for _, n := range now {
		where, known := at[n.Replica]
		if !known {
			continue
		}
		g := gauges[where]
		g.CPULimit += n.CPULimit
		g.Memory += n.Memory
		g.MemoryLimit += n.MemoryLimit
		g.Pids += n.Pids
		g.PidsLimit += n.PidsLimit
		gauges[where] = g
	}
	for _, k := range slots {
		if g, runs := gauges[k]; runs {
			usage(s, g, c.used.sums[k], k.project, k.service, strconv.Itoa(k.number))
		}
	}
}

func usage(s *sheet, g, sum spec.Usage, labels ...string) {
	s.number(cpu, seconds(sum.CPU.Std()), labels...)
	s.number(memory, float64(g.Memory), labels...)
	s.number(pids, float64(g.Pids), labels...)
	s.number(received, float64(sum.Received), labels...)
	s.number(sent, float64(sum.Sent), labels...)
	s.number(blockRead, float64(sum.Read), labels...)
	s.number(blockWrite, float64(sum.Written), labels...)
	if g.CPULimit > 0 {
		s.number(cpuLimit, g.CPULimit, labels...)
		s.number(throttled, seconds(sum.Throttled.Std()), labels...)
	}
	if g.MemoryLimit > 0 {
		s.number(memLimit, float64(g.MemoryLimit), labels...)
	}
	if g.PidsLimit > 0 {
		s.number(pidsLimit, float64(g.PidsLimit), labels...)
	}
}
