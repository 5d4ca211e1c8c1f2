package main

import (
	"context"
	"encoding/json"
	"fmt"
	"image/color"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"dunnage/engine"
	"dunnage/netns"
	"dunnage/orchestrator/plan"
	"dunnage/spec"
	"dunnage/store"
	"dunnage/test/lab"
)

// The host of the rows about scale.
const (
	manyProjects = 50
	manyEach     = 6
)

// scale is what a host with many replicas costs the agent.
type scale struct {
	Replicas int
	Adopted  time.Duration   // from the agent's start until all are adopted
	Lists    []time.Duration // looks that ask about every replica, as one does in a while
	Looks    []time.Duration // the others
	Plans    []time.Duration
}

func manyFile(i int) string {
	return fmt.Sprintf("name: p%d\nservices:\n  web:\n    image: example.org/hello:v1\n    deploy: {replicas: %d}\n    ports: [\"%d:80\"]\n    x-dunnage: {drain: 0s, probe: {tcp: {port: 80}}}\n", i, manyEach, firstPort+i)
}

// measureScale deploys ever more projects, looks at each of the steps (the last
// is manyProjects), and starts the agent at the last one.
func measureScale(ctx context.Context, w world, steps []int, runs int) (all []scale, err error) {
	a, err := w.agent(ctx, "scale", 17)
	if err != nil {
		return nil, err
	}
	l := a.Lab
	deployed := 0
	for _, projects := range steps {
		for ; deployed < projects; deployed++ {
			file, err := write(l, fmt.Sprintf("p%d.yaml", deployed), manyFile(deployed))
			if err != nil {
				return nil, err
			}
			if _, err := a.Run(ctx, nil, "deploy", "-f", file); err != nil {
				return nil, err
			}
		}
		s, err := look(ctx, w, a, runs)
		if err != nil {
			return nil, err
		}
		begun := time.Now()
		if err := a.Start(ctx); err != nil {
			return nil, err
		}
		if err := lab.Await(ctx, daemonLimit, func() error { return adopted(ctx, a, projects*manyEach) }); err != nil {
			return nil, err
		}
		s.Replicas, s.Adopted = projects*manyEach, time.Since(begun)
		all = append(all, s)
	}
	return all, nil
}

// look stops the agent and measures in its place.
func look(ctx context.Context, w world, a lab.Agent, runs int) (s scale, err error) {
	if err := a.Lab.Stop(ctx, "agent"); err != nil {
		return s, err
	}
	out, err := lab.Output(ctx, a.Lab.OnHost(w.bin("build/bin/dunnage-bench"), "-in-namespace-look", a.Lab.Dir, "-runs", fmt.Sprint(runs))...)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		return s, fmt.Errorf("read look times: %w", err)
	}
	return s, nil
}

func adopted(ctx context.Context, a lab.Agent, want int) error {
	out, err := a.Run(ctx, nil, "ps", "--json")
	if err != nil {
		return err
	}
	var all []spec.ReplicaStatus
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		return fmt.Errorf("read ps: %w", err)
	}
	ready := 0
	for _, r := range all {
		if r.State == spec.StateReady && r.Routed {
			ready++
		}
	}
	if ready != want {
		return fmt.Errorf("%d of %d replicas are adopted", ready, want)
	}
	return nil
}

// lookHere is run inside the namespace while no agent is: it looks at the world
// through the agent's own adapters, side by side as the agent does, and plans.
func lookHere(ctx context.Context, dir string, runs int) error {
	l := lab.Lab{Name: filepath.Base(dir), Dir: dir}
	n, err := netns.New(netns.Config{RunDir: l.Path("run"), Pool: lab.Pool, Pool6: lab.Pool6})
	if err != nil {
		return err
	}
	config := engine.ManagedConfig{StateDir: l.Path("state"), RunDir: l.Path("run"), Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	address, _, err := engine.Dial(ctx, engine.ModeManaged, config)
	if err != nil {
		return err
	}
	e, err := engine.Connect(ctx, engine.Config{Address: address, Namespace: "dunnage-bench-" + l.Name, StateDir: config.StateDir, RunDir: config.RunDir, LogBinary: os.Args[0], InitBinary: os.Args[0], Log: config.Log}) // it starts nothing
	if err != nil {
		return err
	}
	defer e.Close() //nolint:errcheck // nothing is lost with the connection
	st, err := store.Open(l.Path("state", "dunnage.db"))
	if err != nil {
		return err
	}
	defer st.Close() //nolint:errcheck // nothing was written
	state, err := st.Load()
	if err != nil {
		return err
	}
	var s scale
	known := memory{names: map[string]string{}}
	measure := func() (times []time.Duration, err error) {
		for i := range runs + 1 {
			begun := time.Now()
			instances, err := lookOnce(ctx, e, n)
			if err != nil {
				return nil, err
			}
			looked := time.Now()
			known.note(plan.Make(wanted(state), known.seen(state, instances, looked)))
			if i > 0 { // the first one reads the rules, which haven't changed for the others
				times, s.Plans = append(times, looked.Sub(begun)), append(s.Plans, time.Since(looked))
			}
		}
		return times, nil
	}
	if s.Lists, err = measure(); err != nil {
		return err
	}
	<-e.Changes(ctx) // the first comes when events are followed
	if s.Looks, err = measure(); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(s)
}

func lookOnce(ctx context.Context, e *engine.Engine, n *netns.Network) (all []spec.Instance, err error) {
	var (
		wg               sync.WaitGroup
		routed, attached error
	)
	wg.Go(func() { all, err = e.Instances(ctx) })
	wg.Go(func() { _, _, routed = n.Routed(ctx, spec.Routing{}) })
	wg.Go(func() { _, _, attached = n.Attached(ctx) })
	wg.Wait()
	for _, e := range []error{err, routed, attached} {
		if e != nil {
			return nil, e
		}
	}
	return all, nil
}

func wanted(s spec.State) plan.Desired {
	var d plan.Desired
	for _, p := range s.Projects {
		project := plan.Project{Record: p}
		for _, r := range s.Releases[p.Name] {
			if r.Number == p.Desired {
				project.Release, project.Good = r, &r
			}
		}
		d.Projects = append(d.Projects, project)
	}
	return d
}

// memory is what an agent remembers of its plans: then the next one asks for
// nothing, as at rest.
type memory struct {
	names   map[string]string
	applied spec.Routing
}

func (m *memory) note(p plan.Plan) {
	m.applied = p.Routing
	for _, a := range p.Actions {
		if w, ok := a.(plan.WriteNames); ok {
			m.names[w.Key.ID] = plan.Fingerprint(w.Endpoint.Names)
		}
	}
}

func (m *memory) seen(s spec.State, instances []spec.Instance, now time.Time) plan.Observed {
	records := map[string]spec.ReplicaRecord{}
	for _, r := range s.Replicas {
		records[r.ID] = r
	}
	o := plan.Observed{Now: now, RulesEqual: true, Applied: m.applied}
	for _, i := range instances {
		o.Replicas = append(o.Replicas, plan.Replica{
			ReplicaKey: i.ReplicaKey, Exists: true, Attached: true, Recorded: true, Record: records[i.ID], Phase: i.Phase, Pid: i.Pid,
			StartedAt: i.StartedAt, Health: spec.HealthHealthy, Named: true, RoutedSince: i.StartedAt, Limits: i.Limits, Names: m.names[i.ID],
		})
	}
	return o
}

func (b *bench) many(ctx context.Context) error {
	say("%d replicas in %d projects", manyProjects*manyEach, manyProjects)
	all, err := measureScale(ctx, b.world, []int{1, 5, 15, manyProjects}, b.runs)
	if err != nil {
		return err
	}
	b.results.Raw["many"], b.scales = all, all
	s := all[len(all)-1]
	look, plan := median(s.Looks), median(s.Plans)
	of := fmt.Sprintf("%d replicas: ", s.Replicas)
	b.results.add(row{What: of + "agent's start until all are adopted", Must: "<= 2 s", Ours: millis(s.Adopted), OK: s.Adopted <= 2*time.Second})
	b.results.add(row{What: of + "one look", Must: "<= 150 ms", Ours: fmt.Sprintf("%s, %s if all are asked about", millis(look), millis(median(s.Lists))), OK: look <= 150*time.Millisecond})
	b.results.add(row{What: of + "one plan", Must: "<= 5 ms", Ours: fmt.Sprintf("%.1f ms", float64(plan.Microseconds())/1000), OK: plan <= 5*time.Millisecond})
	return nil
}

// curves draws what a swap, a look and a plan cost against the number of ports
// or replicas. The looks are those of many.
func (b *bench) curves(ctx context.Context) error {
	say("curves of the costs")
	looks := curve{Name: "LOOK", Of: "REPLICAS", color: color.RGBA{0x1f, 0x6f, 0xb4, 0xff}}
	plans := curve{Name: "PLAN", Of: "REPLICAS", color: color.RGBA{0x2a, 0x8a, 0x2a, 0xff}}
	for _, s := range b.scales {
		looks.Points = append(looks.Points, point{s.Replicas, median(s.Looks)})
		plans.Points = append(plans.Points, point{s.Replicas, median(s.Plans)})
	}
	swaps := curve{Name: "SWAP", Of: "PORTS", color: color.RGBA{0xc0, 0x30, 0x20, 0xff}}
	for _, ports := range []int{1, 10, 100, swapPorts} {
		t, err := measureSwap(ctx, b.world, ports, b.runs)
		if err != nil {
			return err
		}
		swaps.Points = append(swaps.Points, point{ports, median(t)})
	}
	all := []curve{swaps, looks, plans}
	b.results.Raw["curves"] = all
	return saveCurves(strings.TrimSuffix(b.out, filepath.Ext(b.out))+".png", all)
}
