package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"

	"dunnage/spec"
	"dunnage/test/lab"
)

// reviver is a contender that starts a killed process again by itself.
type reviver interface {
	contender
	// startKept is start, with a policy that restarts.
	startKept(ctx context.Context) error
	// pid is the process of the replica that start or startKept made.
	pid(ctx context.Context) (int, error)
}

func (d *dunnage) startKept(ctx context.Context) error { return d.start(ctx) }

func (d *dunnage) pid(ctx context.Context) (int, error) {
	all, err := d.replicas(ctx, "one")
	if err != nil {
		return 0, err
	}
	return all[0].Pid, nil
}

// replicas lists a project's replicas, of which there must be one.
func (d *dunnage) replicas(ctx context.Context, project string) ([]spec.ReplicaStatus, error) {
	out, err := d.agent.Run(ctx, nil, "ps", "-p", project, "--json")
	if err != nil {
		return nil, err
	}
	var all []spec.ReplicaStatus
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		return nil, fmt.Errorf("read ps: %w", err)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("project %s has no replica", project)
	}
	return all, nil
}

func (d *docker) startKept(ctx context.Context) error {
	return d.run(ctx, "run", "-d", "--name", "web", "--restart", "always", "-p", port+":80", image("v1"))
}

func (d *docker) pid(ctx context.Context) (int, error) {
	out, err := lab.Output(ctx, "docker", "-H", d.url(), "inspect", "-f", "{{.State.Pid}}", "web")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(out))
}

// reviveTimes measures, for each in turn, how long it takes from kill -9 of the
// only replica's process until the published port answers again. Each run is a
// new deployment, since one that keeps dying is started again ever later.
func reviveTimes(ctx context.Context, all []reviver, runs int) (map[string][]time.Duration, error) {
	times := map[string][]time.Duration{}
	for range runs {
		for _, c := range all {
			d, err := timeRevival(ctx, c)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name(), err)
			}
			times[c.name()] = append(times[c.name()], d)
		}
	}
	return times, nil
}

func timeRevival(ctx context.Context, c reviver) (time.Duration, error) {
	if err := c.startKept(ctx); err != nil {
		return 0, err
	}
	if err := awaitAnswer(ctx, c.host(), port); err != nil {
		return 0, err
	}
	if err := pause(ctx, settle); err != nil {
		return 0, err
	}
	pid, err := c.pid(ctx)
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return 0, fmt.Errorf("kill the replica's process %d: %w", pid, err)
	}
	for !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) { // its answers aren't the new one's
		time.Sleep(100 * time.Microsecond)
	}
	if err := awaitAnswer(ctx, c.host(), port); err != nil {
		return 0, err
	}
	took := time.Since(begun)
	return took, c.remove(ctx)
}

func (b *bench) revive(ctx context.Context) error {
	say("kill -9 of the only replica's process, %d times in turn", b.runs)
	t, err := reviveTimes(ctx, implementing[reviver](b), b.runs)
	if err != nil {
		return err
	}
	b.results.Raw["revive"] = t
	ours := median(t[b.us.name()])
	b.results.add(row{
		What: "kill -9 of the only replica until the port answers", Must: "<= 350 ms",
		Ours: millis(ours), OK: ours <= 350*time.Millisecond, Peers: shown(b.us, t),
	})
	return nil
}

// implementing lists those who take part and can do more than a contender, us
// first.
func implementing[T any](b *bench) []T {
	var all []T
	for _, c := range b.all() {
		if t, ok := c.(T); ok {
			all = append(all, t)
		}
	}
	return all
}

func millis(d time.Duration) string { return fmt.Sprintf("%d ms", d.Milliseconds()) }

// shown is the peers' medians.
func shown(us *dunnage, t map[string][]time.Duration) map[string]string {
	peers := map[string]string{}
	for name, v := range t {
		if name != us.name() {
			peers[name] = millis(median(v))
		}
	}
	return peers
}
