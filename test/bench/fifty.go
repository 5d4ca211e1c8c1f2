package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"dunnage/test/lab"
)

// crowd is the number of replicas of the rows that have many.
const crowd = 50

// crowder is a contender that runs many replicas of one service.
type crowder interface {
	contender
	// upMany starts crowd replicas. probe is a Compose healthcheck, or empty.
	upMany(ctx context.Context, probe string) error
	downMany(ctx context.Context) error
	// stats shows once what all of them use.
	stats(ctx context.Context) error
	// probe is what up waits for in each replica, as Compose.
	probe() string
}

const execProbe = `
    healthcheck: {test: ["CMD", "/hello", "-h"], interval: 5s}
`

const httpProbe = `
    x-dunnage: {probe: {http: {port: 80, path: /healthz}, interval: 5s}}
`

func (d *dunnage) upMany(ctx context.Context, probe string) error {
	file, err := write(d.host(), "crowd.yaml", fmt.Sprintf("name: crowd\nservices:\n  web:\n    image: example.org/hello:v1\n    deploy: {replicas: %d}%s\n", crowd, probe))
	if err != nil {
		return err
	}
	_, err = d.agent.Run(ctx, nil, "deploy", "-f", file)
	return err
}

func (d *dunnage) downMany(ctx context.Context) error {
	_, err := d.agent.Run(ctx, nil, "down", "-p", "crowd")
	return err
}

func (d *dunnage) stats(ctx context.Context) error {
	_, err := d.agent.Run(ctx, nil, "stats", "--all")
	return err
}

func (d *docker) stats(ctx context.Context) error { return d.run(ctx, "stats", "--no-stream") }

func (d *docker) crowd(ctx context.Context, args ...string) error {
	_, err := lab.Output(ctx, append([]string{"docker-compose", "-H", d.url(), "-p", "crowd", "-f", d.l.Path("crowd.yaml")}, args...)...)
	return err
}

func (d *docker) upMany(ctx context.Context, probe string) error {
	if _, err := write(d.l, "crowd.yaml", "version: \"3.8\"\nservices:\n  web:\n    image: example.org/hello:v1"+probe+"\n"); err != nil {
		return err
	}
	return d.crowd(ctx, "up", "-d", "--scale", fmt.Sprintf("web=%d", crowd))
}

// downMany wraps errLeft when docker-compose finds the network in use by
// containers that it has just removed, which doesn't pass with time.
func (d *docker) downMany(ctx context.Context) error {
	err := d.crowd(ctx, "down")
	if err != nil && strings.Contains(err.Error(), "has active endpoints") {
		return errLeft
	}
	return err
}

// Ours are up when they have answered; without a probe, when they have run for
// 2 s. docker-compose waits for nothing.
func (d *dunnage) probe() string { return httpProbe }
func (d *docker) probe() string  { return "" }

// crowdRuns is what the rows with many replicas repeat at most: a run takes
// half a minute.
const crowdRuns = 3

type crowdTimes struct {
	Up, Down, Stats map[string][]time.Duration
}

// looks is how often stats is shown in each turn.
const looks = 5

// errLeft: a peer's containers are gone, and its network is not.
var errLeft = errors.New("docker keeps the network of containers that it has removed")

func measureCrowds(ctx context.Context, all []crowder, runs int) (crowdTimes, error) {
	t := crowdTimes{map[string][]time.Duration{}, map[string][]time.Duration{}, map[string][]time.Duration{}}
	for range min(runs, crowdRuns) {
		up, down, shown, err := turn(ctx, all)
		for range 2 { // a turn in which a peer failed says nothing: the ratio is of both
			if !errors.Is(err, errLeft) {
				break
			}
			say("%v: once more", err)
			up, down, shown, err = turn(ctx, all)
		}
		if err != nil {
			return t, err
		}
		for _, c := range all {
			t.Up[c.name()], t.Down[c.name()] = append(t.Up[c.name()], up[c.name()]), append(t.Down[c.name()], down[c.name()])
			t.Stats[c.name()] = append(t.Stats[c.name()], shown[c.name()]...)
		}
	}
	return t, nil
}

// turn is one up and down of each, with looks in between.
func turn(ctx context.Context, all []crowder) (up, down map[string]time.Duration, shown map[string][]time.Duration, err error) {
	up, down, shown = map[string]time.Duration{}, map[string]time.Duration{}, map[string][]time.Duration{}
	for _, c := range all {
		begun := time.Now()
		if err := c.upMany(ctx, c.probe()); err != nil {
			return nil, nil, nil, fmt.Errorf("%s: %w", c.name(), err)
		}
		up[c.name()] = time.Since(begun)
		if err := pause(ctx, settle); err != nil {
			return nil, nil, nil, err
		}
		for range looks {
			begun := time.Now()
			if err := c.stats(ctx); err != nil {
				return nil, nil, nil, fmt.Errorf("%s: %w", c.name(), err)
			}
			shown[c.name()] = append(shown[c.name()], time.Since(begun))
		}
		begun = time.Now()
		if err := c.downMany(ctx); err != nil {
			return nil, nil, nil, fmt.Errorf("%s: %w", c.name(), err)
		}
		down[c.name()] = time.Since(begun)
	}
	return up, down, shown, nil
}

func (b *bench) crowds(ctx context.Context) error {
	say("%d replicas up and down, %d times in turn", crowd, min(b.runs, crowdRuns))
	t, err := measureCrowds(ctx, implementing[crowder](b), b.runs)
	if err != nil {
		return err
	}
	b.results.Raw["crowd"] = t
	for _, part := range []struct {
		what  string
		times map[string][]time.Duration
	}{{"up", t.Up}, {"down", t.Down}} {
		r := row{
			What: fmt.Sprintf("%d replicas %s, by docker-compose", crowd, part.what), Must: "<= 0.40 x",
			Ours: millis(median(part.times[b.us.name()])), OK: true, Peers: shown(b.us, part.times),
		}
		if theirs := part.times["docker"]; len(theirs) > 0 {
			ratio := pairedRatio(part.times[b.us.name()], theirs)
			r.Ours, r.OK = fmt.Sprintf("%.2f x, %s", ratio, r.Ours), ratio <= 0.4
		}
		b.results.add(r)
	}
	ours := median(t.Stats[b.us.name()])
	b.results.add(row{
		What: fmt.Sprintf("stats of %d replicas, once", crowd), Must: "<= 100 ms",
		Ours: millis(ours), OK: ours <= 100*time.Millisecond, Peers: shown(b.us, t.Stats),
	})
	return nil
}
