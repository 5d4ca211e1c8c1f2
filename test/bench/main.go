// Command dunnage-bench measures dunnage, and Docker and podman where they are
// installed, side by side in one run, each in network namespaces of its own with
// private daemons. It prints a table of what must be and what is, writes
// build/bench.json, and exits 1 when a must is missed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"dunnage/test/lab"
)

// options are the flags.
type options struct {
	redeploys     int
	peerRedeploys int
	runs          int
	only          string
	out           string
	swapIn        string
	lookIn        string
	ports         int
}

// parse reads the command line. The flag package has told of an error.
func parse(args []string) (options, error) {
	var o options
	f := flag.NewFlagSet("dunnage-bench", flag.ContinueOnError)
	f.IntVar(&o.redeploys, "redeploys", 20, "redeploys under load, of ours")
	f.IntVar(&o.peerRedeploys, "peer-redeploys", 5, "redeploys under load, of each peer")
	f.IntVar(&o.runs, "runs", 11, "runs of every other measurement")
	f.StringVar(&o.only, "only", "redeploy,start,revive,crowd,throughput,balance,footprint,hogs,flood,many,swap,ports,secrets,logs,curves", "measurements to make")
	f.StringVar(&o.out, "o", "build/bench.json", "file for the results; the curves are drawn beside it, as .png")
	f.StringVar(&o.swapIn, "in-namespace-swap", "", "internal: time swaps here, with this run directory")
	f.IntVar(&o.ports, "ports", swapPorts, "internal: ports of -in-namespace-swap")
	f.StringVar(&o.lookIn, "in-namespace-look", "", "internal: time looks here, in this lab's folder")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		err := fmt.Errorf("unknown argument %q: -only names the measurements", f.Arg(0))
		fmt.Fprintln(f.Output(), "bench:", err)
		return o, err
	}
	return o, nil
}

func main() {
	o, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	if o.swapIn != "" {
		return swapHere(ctx, o.swapIn, o.ports, o.runs)
	}
	if o.lookIn != "" {
		return lookHere(ctx, o.lookIn, o.runs)
	}
	root, err := os.Getwd()
	if err != nil {
		return fmt.Errorf("find the checkout: %w", err)
	}
	b := &bench{options: o, world: world{root: root, dir: "/var/tmp/dunnage-bench"}, results: &results{Raw: map[string]any{}}}
	err = b.measure(ctx)
	// What was measured is worth having, whatever came after it.
	if printErr := errors.Join(b.results.print(os.Stdout), b.results.save(o.out)); err == nil {
		err = printErr
	}
	if err == nil && !b.results.ok() {
		err = errors.New("a must is missed")
	}
	return err
}

type bench struct {
	options
	world
	results *results
	us      *dunnage
	peers   []contender // those that redeploy
	ctr     *ctr
	scales  []scale // of many, for the curves
}

func (b *bench) wants(what string) bool { return slices.Contains(strings.Split(b.only, ","), what) }

// measure does one measurement after the other: nothing else of ours shall run
// while the clock does.
func (b *bench) measure(ctx context.Context) (err error) {
	var up []*lab.Lab
	defer func() {
		for _, l := range up {
			// ctx may have ended; what was made must go all the same.
			err = errors.Join(err, l.Down(context.WithoutCancel(ctx)))
		}
	}()
	up = append(up, b.lab("swap", 14), b.lab("one", 15), b.lab("many", 16), b.lab("scale", 17), b.lab("secrets", 18), b.lab("logs", 19))
	if slices.ContainsFunc([]string{"redeploy", "start", "revive", "crowd", "throughput", "balance", "footprint", "hogs", "flood"}, b.wants) {
		b.choose()
		for _, c := range b.all() {
			say("starting %s", c.name())
			up = append(up, c.host())
			if err := c.up(ctx); err != nil && slices.Contains(b.peers, c) {
				b.dropout(c, err)
			} else if err != nil {
				return fmt.Errorf("%s: %w", c.name(), err)
			}
		}
	}
	for _, m := range []struct {
		name string
		do   func(context.Context) error
	}{{"redeploy", b.redeploy}, {"start", b.start}, {"revive", b.revive}, {"crowd", b.crowds},
		{"throughput", b.throughput}, {"balance", b.balance}, {"footprint", b.footprint}, {"hogs", b.hogs}, {"flood", b.flood}, {"many", b.many}, {"swap", b.swap}, {"ports", b.ports}, {"secrets", b.secrets}, {"logs", b.logs}, {"curves", b.curves}} {
		if !b.wants(m.name) {
			continue
		}
		if err := m.do(ctx); err != nil {
			return fmt.Errorf("measure %s: %w", m.name, err)
		}
	}
	return nil
}

// choose finds who takes part.
func (b *bench) choose() {
	b.us, b.ctr = newDunnage(b.world), newCtr(b.world)
	b.peer(newDocker(b.world), "dockerd", "docker", "docker-compose")
	b.peer(newPodman(b.world), "podman")
}

func (b *bench) peer(c contender, programs ...string) {
	if a := absent(programs...); a != "" {
		b.results.Missing = append(b.results.Missing, fmt.Sprintf("%s wasn't measured: no %s here; BENCH_PEERS=1 make bench installs it", c.name(), a))
		return
	}
	b.peers = append(b.peers, c)
}

// dropout leaves a peer that fails out of what follows: its trouble must not
// cost our own figures.
func (b *bench) dropout(c contender, why error) {
	say("%s: %v", c.name(), why)
	b.results.Missing = append(b.results.Missing, fmt.Sprintf("%s dropped out: %v", c.name(), why))
	b.peers = slices.DeleteFunc(slices.Clone(b.peers), func(p contender) bool { return p == c })
}

func (b *bench) all() []contender { return append([]contender{b.us, b.ctr}, b.peers...) }

func (b *bench) redeploy(ctx context.Context) error {
	say("%d redeploys of 3 replicas at %d new connections/s, %d keep-alive clients, %d downloads", b.redeploys, newPerSecond, keptClients, downloaders)
	r, err := measureRedeploys(ctx, b.world, b.us, b.redeploys)
	if err != nil {
		return err
	}
	say("%v", r.Report)
	lost := row{What: "requests lost by redeploys", Must: "0", Ours: losses(r), OK: r.Report.Failed == 0, Peers: map[string]string{}}
	gap := row{What: "longest gap, above that without", Must: "<= 25 ms", Ours: fmt.Sprintf("%.1f ms", r.gap()), OK: r.gap() <= 25, Peers: map[string]string{}}
	raw := map[string]redeployed{b.us.name(): r}
	for _, c := range b.peers {
		say("%d redeploys of one replica by %s", b.peerRedeploys, c.name())
		r, err := measureRedeploys(ctx, b.world, c, b.peerRedeploys)
		if err != nil {
			b.dropout(c, err)
			continue
		}
		say("%v", r.Report)
		raw[c.name()] = r
		lost.Peers[c.name()] = losses(r)
		gap.Peers[c.name()] = fmt.Sprintf("%.0f ms", r.gap())
	}
	b.results.Raw["redeploy"] = raw
	b.results.add(lost)
	b.results.add(gap)
	return nil
}

func losses(r redeployed) string {
	return fmt.Sprintf("%d of %d in %d redeploys", r.Report.Failed, r.Report.Asked, r.Times)
}

func (b *bench) start(ctx context.Context) error {
	say("starts of one published replica, %d of each in turn", b.runs)
	t, err := startTimes(ctx, b.all(), b.runs)
	if err != nil {
		return err
	}
	b.results.Raw["start"] = t
	ours := t[b.us.name()]
	show := func(name string) string { return fmt.Sprintf("%d ms", median(t[name]).Milliseconds()) }
	bare := pairedRatio(ours, t[b.ctr.name()])
	b.results.add(row{
		What: "deploy until the port answers, by bare ctr run (" + show("ctr") + ")", Must: "<= 1.70 x",
		Ours: fmt.Sprintf("%.2f x, %s", bare, show("dunnage")), OK: bare <= 1.7,
		Peers: ratios(t, "ctr"),
	})
	if len(t["docker"]) > 0 {
		d := pairedRatio(ours, t["docker"])
		b.results.add(row{
			What: "deploy until the port answers, by docker run -p", Must: "<= 0.70 x",
			Ours: fmt.Sprintf("%.2f x", d), OK: d <= 0.7,
			Peers: map[string]string{"docker": show("docker")},
		})
	}
	return nil
}

// ratios says how long the peers took, by base.
func ratios(t map[string][]time.Duration, base string) map[string]string {
	m := map[string]string{}
	for name, v := range t {
		m[name] = fmt.Sprintf("%.2f x, %d ms", pairedRatio(v, t[base]), median(v).Milliseconds())
	}
	return m
}

func (b *bench) swap(ctx context.Context) error {
	say("swaps of %d published ports", swapPorts)
	t, err := measureSwap(ctx, b.world, swapPorts, b.runs)
	if err != nil {
		return err
	}
	b.results.Raw["swap"] = t
	m := median(t)
	b.results.add(row{
		What: fmt.Sprintf("swap of %d published ports", swapPorts), Must: "<= 100 ms",
		Ours: fmt.Sprintf("%.0f ms", float64(m.Microseconds())/1000), OK: m <= 100*time.Millisecond,
	})
	return nil
}

func (b *bench) ports(ctx context.Context) error {
	say("p50 of new connections with %d published ports and with 1", swapPorts)
	p, err := measurePorts(ctx, b.world, b.runs)
	if err != nil {
		return err
	}
	b.results.Raw["ports"] = p
	b.results.add(row{
		What: fmt.Sprintf("p50 of a new connection, %d published ports by 1", swapPorts), Must: "<= 1.15 x",
		Ours: fmt.Sprintf("%.2f x (%.0f by %.0f us)", p.ratio(), 1000*median(p.Many), 1000*median(p.One)), OK: p.ratio() <= 1.15,
	})
	return nil
}

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, "==> "+format+"\n", args...) }
