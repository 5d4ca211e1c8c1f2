package apitest

import (
	"context"
	"time"

	"dunnage/spec"
)

// Stats implements api.Backend: the n-th replica uses n tenths of a core, and n
// times as much of everything else as the first. Every second one has limits, and
// has used them up.
func (f *Fake) Stats(ctx context.Context) (spec.Stats, error) {
	st, err := f.Status(ctx)
	out := spec.Stats{
		At: f.Now, Cores: 4, Memory: 8 << 30, Replicas: []spec.ReplicaStats{},
		Own: []spec.OwnStats{
			{Name: "agent", Processes: 1, CPU: spec.Duration(time.Minute), Memory: 30 << 20, Cores: new(0.004)},
			{Name: "containerd", Processes: 1, CPU: spec.Duration(time.Minute), Memory: 40 << 20, Cores: new(0.012)},
			{Name: "shims", Processes: 2, CPU: spec.Duration(time.Second), Memory: 9 << 20},
			{Name: "log writers"},
		},
	}
	for _, p := range st.Projects {
		for _, s := range p.Services {
			for _, r := range s.Replicas {
				if r.Started.IsZero() {
					continue
				}
				n := int64(len(out.Replicas) + 1)
				u := spec.Usage{
					Project: p.Name, Service: s.Name, Replica: r.Replica, At: f.Now, Started: r.Started,
					CPU: spec.Duration(time.Duration(n) * time.Minute), Memory: n << 20, Pids: n,
					Received: n << 10, Sent: n << 11, Read: n << 12, Written: n << 13,
				}
				rates := spec.Rates{Over: spec.Duration(10 * time.Second), Cores: float64(n) / 10, Received: float64(n << 4), Sent: float64(n << 5), Read: float64(n << 6), Written: float64(n << 7)}
				if n%2 == 0 {
					u.CPULimit, u.MemoryLimit, u.PidsLimit = float64(n)/10, n<<20, 100
					u.Periods, u.ThrottledPeriods, u.Throttled = 1000, 500, spec.Duration(time.Second)
					rates.Throttled = 0.5
				}
				out.Replicas = append(out.Replicas, spec.ReplicaStats{Usage: u, Rates: &rates})
			}
		}
	}
	return out, err
}
