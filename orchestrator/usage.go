package orchestrator

import (
	"context"
	"sync"
	"time"

	"dunnage/spec"
)

// Usage says what the running replicas use, in the order of Status. It waits for
// nobody but the kernel.
func (l *Loop) Usage(ctx context.Context) ([]spec.Usage, error) {
	st, err := l.Status(ctx)
	if err != nil {
		return nil, err
	}
	links, err := l.cfg.Network.LinkBytes()
	if err != nil {
		return nil, err
	}
	var out []spec.Usage
	for _, p := range st.Projects {
		for _, s := range p.Services {
			for _, r := range s.Replicas {
				u, runs := l.cfg.Engine.Usage(r.Replica)
				if !runs {
					continue
				}
				u.Project, u.Service, u.Started = r.Project, r.Service, r.Started
				u.Received, u.Sent = links[r.Replica].Received, links[r.Replica].Sent
				out = append(out, u)
			}
		}
	}
	return out, nil
}

const (
	// sampleEvery is how often usage is counted without anybody asking, so that
	// whoever asks once gets rates at once. Counting fifty replicas, and their shims and log writers, takes 15 ms.
	sampleEvery = 30 * time.Second
	// sampleAge is how old a count must be to be compared with. Over less, rates
	// say more of the moment than of the replica.
	sampleAge = time.Second
)

// samples are the last two counts: the newest may be too young to compare with.
type samples struct {
	mu            sync.Mutex
	older, newest sample
}

type sample struct {
	at       time.Time
	replicas map[string]spec.Usage
	own      map[string]spec.OwnStats
}

func sampleOf(st spec.Stats) sample {
	out := sample{at: st.At, replicas: map[string]spec.Usage{}, own: map[string]spec.OwnStats{}}
	for _, r := range st.Replicas {
		out.replicas[r.Replica] = r.Usage
	}
	for _, o := range st.Own {
		out.own[o.Name] = o
	}
	return out
}

func (s *samples) put(next sample) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.older, s.newest = s.newest, next
}

// before is what a count at now is compared with.
func (s *samples) before(now time.Time) sample {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.newest.at) < sampleAge {
		return s.older
	}
	return s.newest
}

// Sample counts usage now and then, until the loop's context ends.
func (l *Loop) Sample() {
	t := time.NewTicker(sampleEvery)
	defer t.Stop()
	for {
		if st, err := l.Stats(l.ctx); err == nil { // else the next one
			l.samples.put(sampleOf(st))
		}
		select {
		case <-l.ctx.Done():
			return
		case <-t.C:
		}
	}
}

// Stats says what the running replicas and dunnage itself use, with rates over
// the seconds since it was counted last.
func (l *Loop) Stats(ctx context.Context) (spec.Stats, error) {
	usages, err := l.Usage(ctx)
	if err != nil {
		return spec.Stats{}, err
	}
	st := spec.Stats{At: l.cfg.Clock.Now(), Replicas: []spec.ReplicaStats{}, Own: l.cfg.Engine.Own(ctx)}
	st.Cores, st.Memory = l.cfg.Engine.HostSize()
	before := l.samples.before(st.At)
	for _, u := range usages {
		st.Replicas = append(st.Replicas, spec.ReplicaStats{Usage: u, Rates: spec.RatesOf(before.replicas[u.Replica], u)})
	}
	for i, o := range st.Own {
		if b, known := before.own[o.Name]; known {
			cores := max(o.CPU-b.CPU, 0).Std().Seconds() / st.At.Sub(before.at).Seconds()
			st.Own[i].Cores = &cores
		}
	}
	return st, nil
}
