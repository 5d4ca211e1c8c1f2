package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"dunnage/test/lab"
)

const (
	// watched is how long CPU time is measured: six rounds of probes.
	watched = 30 * time.Second
	// scraped is how often metrics are asked for, as Prometheus does by default.
	scraped = 15 * time.Second
)

// footprint is what an agent or a daemon costs.
type footprint struct {
	Idle   int64   `json:"idle_bytes"`
	Crowd  int64   `json:"crowd_bytes"`
	Agent  float64 `json:"agent_cores"`                 // with HTTP probes, and metrics scraped
	Probes float64 `json:"probes_cores,omitempty"`      // everything, with exec probes
	Theirs float64 `json:"peer_probes_cores,omitempty"` // the same of Docker
}

func measureFootprint(ctx context.Context, us *dunnage, peer *docker) (f footprint, err error) {
	if err := us.host().Stop(ctx, "agent"); err != nil { // what went before mustn't count
		return f, err
	}
	if err := us.agent.Start(ctx); err != nil {
		return f, err
	}
	if err := pause(ctx, 5*time.Second); err != nil {
		return f, err
	}
	if f.Idle, err = us.host().MemoryOf("agent"); err != nil {
		return f, err
	}
	if err := us.upMany(ctx, httpProbe); err != nil {
		return f, err
	}
	own := func() (time.Duration, error) { return us.host().CPUOf("agent") }
	stop := scraping(ctx, us)
	f.Agent, err = cores(ctx, own)
	if err = errors.Join(err, stop()); err != nil {
		return f, err
	}
	if f.Crowd, err = us.host().MemoryOf("agent"); err != nil {
		return f, err
	}
	if err := us.downMany(ctx); err != nil {
		return f, err
	}
	if f.Probes, err = probing(ctx, us); err != nil || peer == nil {
		return f, err
	}
	f.Theirs, err = probing(ctx, peer)
	return f, err
}

// scraping asks for the agent's metrics now and then, until it is told to stop.
func scraping(ctx context.Context, us *dunnage) (stop func() error) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var failed error
	wg.Go(func() {
		for {
			_, err := lab.Output(ctx, "curl", "-sSf", "-o", us.host().Path("metrics"), "--unix-socket", us.host().Path("agent.sock"), "http://agent/metrics")
			if err != nil && ctx.Err() == nil {
				failed = err
			}
			if pause(ctx, scraped) != nil {
				return
			}
		}
	})
	return func() error {
		cancel()
		wg.Wait()
		return failed
	}
}

// probing is what a contender with crowd replicas and an exec probe in each
// uses of the CPUs: daemons, shims, runtimes and the commands.
func probing(ctx context.Context, c crowder) (float64, error) {
	if err := c.upMany(ctx, execProbe); err != nil {
		return 0, err
	}
	used, err := cores(ctx, c.host().CPU)
	if err != nil {
		return 0, err
	}
	return used, c.downMany(ctx)
}

// cores is how much of a CPU is used on average.
func cores(ctx context.Context, used func() (time.Duration, error)) (float64, error) {
	if err := pause(ctx, 10*time.Second); err != nil { // the start is over
		return 0, err
	}
	begun := time.Now()
	before, err := used()
	if err != nil {
		return 0, err
	}
	if err := pause(ctx, watched); err != nil {
		return 0, err
	}
	after, err := used()
	return (after - before).Seconds() / time.Since(begun).Seconds(), err
}

func (b *bench) footprint(ctx context.Context) error {
	say("memory and CPU with %d replicas that are probed every 5 s", crowd)
	var peer *docker
	for _, c := range b.peers {
		if d, ok := c.(*docker); ok {
			peer = d
		}
	}
	f, err := measureFootprint(ctx, b.us, peer)
	if err != nil {
		return err
	}
	b.results.Raw["footprint"] = f
	mb := func(n int64) string { return fmt.Sprintf("%.0f MB", float64(n)/1e6) }
	percent := func(c float64) string { return fmt.Sprintf("%.1f %%", 100*c) }
	b.results.add(row{What: "the agent's memory, idle", Must: "<= 35 MB", Ours: mb(f.Idle), OK: f.Idle <= 35e6})
	b.results.add(row{What: fmt.Sprintf("the agent's memory, %d replicas", crowd), Must: "<= 50 MB", Ours: mb(f.Crowd), OK: f.Crowd <= 50e6})
	b.results.add(row{What: fmt.Sprintf("the agent's CPU, %d HTTP probes every 5 s, scraped every 15 s", crowd), Must: "<= 1 %", Ours: percent(f.Agent), OK: f.Agent <= 0.01})
	if f.Theirs > 0 {
		ratio := f.Probes / f.Theirs
		b.results.add(row{
			What: fmt.Sprintf("CPU of everything, %d exec probes every 5 s, by docker", crowd), Must: "<= 0.20 x",
			Ours: fmt.Sprintf("%.2f x, %s", ratio, percent(f.Probes)), OK: ratio <= 0.2, Peers: map[string]string{"docker": percent(f.Theirs)},
		})
	}
	return nil
}
