package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"dunnage/api"
	"dunnage/spec"
)

func (p *program) statsCommand() *cli.Command {
	return &cli.Command{
		Name:      "stats",
		Usage:     "show what replicas use: CPU, memory, network, block I/O, processes",
		ArgsUsage: "[SERVICE|REPLICA...]",
		Description: "Shows the running replicas of the project, or of all projects where there is neither -p nor a manifest: on a terminal anew each second until it is interrupted, elsewhere once.\n\n" +
			"A CPU % of 100 is one whole core. MEM USAGE leaves out file cache that the kernel can simply drop, as `docker stats` does; where there is no limit, LIMIT is the host's memory. " +
			"NET I/O and BLOCK I/O are bytes in and out since the replica began, NET/S and BLOCK/S the same a second; a replica in the host's network or another's has none of its own, and block I/O through the page cache is counted on cgroup v2 only. " +
			"THROTTLED is the part of the time slices of its CPU limit in which a replica had used up its share and waited. " +
			"Rates are over the last second on a terminal, and at first, or where it is shown once, over the one to eleven seconds since the agent counted last.\n\n" +
			"Below the replicas of a terminal stands what dunnage itself takes, without the memory of programs that several processes share; `--json` has it too, with all counters. " +
			"A narrow terminal leaves out BLOCK/S, NET/S, BLOCK I/O, PIDS, NET I/O, MEM %, THROTTLED and PROJECT, in this order.\n\n" +
			"Example:\n   dunnage stats -p shop --sort cpu",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "of all projects, even where there is a manifest"},
			&cli.BoolFlag{Name: "no-stream", Usage: "show once, also on a terminal"},
			&cli.StringFlag{Name: "sort", Value: "name", Usage: "`ORDER`: name, cpu, memory, net, block, pids or throttled; the most first"},
			jsonFlag(),
		},
		Action: p.withAgent(p.stats),
	}
}

// statsEvery is how often a terminal is painted anew.
const statsEvery = time.Second

func (p *program) stats(ctx context.Context, c *cli.Context, agent *api.Client) error {
	order, known := statsOrders[c.String("sort")]
	if !known {
		return usagef("--sort %s: use name, cpu, memory, net, block, pids or throttled", quote(c.String("sort")))
	}
	name, err := "", error(nil)
	if !c.Bool("all") {
		if name, err = p.findProject(c); err != nil {
			return err
		}
	}
	status, err := agent.Status(ctx)
	if err != nil {
		return err
	}
	if err := p.checkNames(ctx, c, agent, status, name, nil); err != nil {
		return err
	}
	st, err := agent.Stats(ctx)
	if err != nil {
		return err
	}
	choose := func(st *spec.Stats) {
		st.Replicas = slices.DeleteFunc(st.Replicas, func(r spec.ReplicaStats) bool { return !chosen(r.Usage, name, c.Args().Slice()) })
		slices.SortStableFunc(st.Replicas, order)
	}
	choose(&st)
	switch {
	case c.Bool("json"):
		return p.printJSON(st)
	case !p.terminal.stdout:
		return p.write(p.statsTable(st, name == "", true))
	case c.Bool("no-stream"):
		return p.print(p.statsPicture(st, name == ""))
	}
	return p.watchStats(ctx, agent, st, choose, name == "")
}

// chosen reports whether the replica is of the project (empty = any) and among
// the names (none = all).
func chosen(u spec.Usage, project string, names []string) bool {
	if project != "" && u.Project != project {
		return false
	}
	r := spec.ReplicaStatus{Project: u.Project, Service: u.Service, Replica: u.Replica}
	return len(names) == 0 || slices.Contains(names, u.Service) || slices.ContainsFunc(names, func(n string) bool { return isCalled(r, n) })
}

// watchStats paints the terminal anew each second. What it was painted with last
// stays there.
func (p *program) watchStats(ctx context.Context, agent *api.Client, st spec.Stats, choose func(*spec.Stats), withProject bool) error {
	const home, below, endOfLine = "\x1b[H", "\x1b[J", "\x1b[K\n"
	t := time.NewTicker(statsEvery)
	defer t.Stop()
	if err := p.print(home + below); err != nil {
		return err
	}
	for {
		p.resize()
		lines := strings.Split(strings.TrimSuffix(p.statsPicture(st, withProject), "\n"), "\n")
		if fits := p.terminal.height - 1; p.terminal.height > 0 && len(lines) > fits {
			hidden := len(lines) - max(fits-1, 0)
			lines = append(lines[:len(lines)-hidden], p.paintOut(grey, p.fit(fmt.Sprintf("%s more: name services, or use --sort, or --no-stream", counted(hidden, "line")))))
		}
		if err := p.print(home + strings.Join(lines, endOfLine) + endOfLine + below); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
		next, err := agent.Stats(ctx)
		if err != nil {
			return err
		}
		compareStats(st, &next)
		choose(&next)
		st = next
	}
}

// compareStats makes rates those since the picture before.
func compareStats(before spec.Stats, now *spec.Stats) {
	replicas := map[string]spec.Usage{}
	for _, r := range before.Replicas {
		replicas[r.Replica] = r.Usage
	}
	for i, r := range now.Replicas {
		if b, ok := replicas[r.Replica]; ok {
			now.Replicas[i].Rates = spec.RatesOf(b, r.Usage)
		}
	}
	over := now.At.Sub(before.At).Seconds()
	for i := range now.Own {
		for _, b := range before.Own {
			if b.Name == now.Own[i].Name && over > 0 {
				cores := max(now.Own[i].CPU-b.CPU, 0).Std().Seconds() / over
				now.Own[i].Cores = &cores
			}
		}
	}
}

// statsPicture is what a terminal shows.
func (p *program) statsPicture(st spec.Stats, withProject bool) string {
	var b bytes.Buffer
	q := *p
	q.stdout = &b
	t := q.statsTable(st, withProject, true)
	if p.terminal.width > 0 && t.fullWidth() > p.terminal.width {
		t = q.statsTable(st, withProject, false)
	}
	_ = q.write(t) // a buffer takes everything
	for _, line := range p.wrapped(ownText(st.Own), 0) {
		b.WriteString(p.paintOut(grey, line) + "\n")
	}
	return b.String()
}

// ownText says what dunnage takes: "dunnage itself: agent 0.3%, 31.0 MiB; ...".
func ownText(own []spec.OwnStats) string {
	var parts []string
	for _, o := range own {
		if o.Processes == 0 {
			continue
		}
		text := o.Name + " "
		if o.Processes > 1 {
			text = fmt.Sprintf("%d %s ", o.Processes, o.Name)
		}
		if o.Cores != nil {
			text += percent(*o.Cores) + " CPU, "
		}
		parts = append(parts, text+size(o.Memory))
	}
	return "dunnage itself: " + strings.Join(parts, "; ")
}

// statsTable names replicas in full, or as a narrow terminal shows them.
func (p *program) statsTable(st spec.Stats, withProject, inFull bool) table {
	t := table{columns: []column{
		{name: "REPLICA"}, {name: "CPU %"}, {name: "MEM USAGE / LIMIT"}, {name: "MEM %", drop: 4}, {name: "NET I/O", drop: 5}, {name: "BLOCK I/O", drop: 7},
		{name: "PIDS", drop: 6}, {name: "THROTTLED", drop: 3}, {name: "NET/S", drop: 8}, {name: "BLOCK/S", drop: 9},
	}}
	if withProject {
		t.columns = append([]column{{name: "PROJECT", drop: 2}}, t.columns...)
	}
	for _, r := range st.Replicas {
		cells := statsCells(r, st.Memory)
		if inFull {
			cells[0] = r.Replica
		}
		cells[0] = printable(cells[0])
		colours := map[int]int{}
		if limit := memoryLimit(r.Usage, st.Memory); limit > 0 && float64(r.Memory) > 0.9*float64(limit) {
			colours[3] = red
		}
		if r.Rates != nil && r.Rates.Throttled > 0.25 {
			colours[7] = yellow
		}
		if withProject {
			cells = append([]string{printable(r.Project)}, cells...)
			shifted := map[int]int{}
			for i, colour := range colours {
				shifted[i+1] = colour
			}
			colours = shifted
		}
		t.rows = append(t.rows, row{cells: cells, colours: colours})
	}
	return t
}

// statsCells are a replica's columns; what isn't known, or doesn't exist, is empty.
func statsCells(r spec.ReplicaStats, hostMemory int64) []string {
	limit := memoryLimit(r.Usage, hostMemory)
	cells := []string{
		spec.ShortReplica(r.Service, r.Replica), "", size(r.Memory) + " / " + size(limit), percent(float64(r.Memory) / float64(max(limit, 1))),
		both(r.Received, r.Sent), both(r.Read, r.Written), fmt.Sprint(r.Pids), "", "", "",
	}
	if rates := r.Rates; rates != nil {
		cells[1] = percent(rates.Cores)
		if r.CPULimit > 0 {
			cells[7] = percent(rates.Throttled)
		}
		cells[8] = both(int64(rates.Received), int64(rates.Sent))
		cells[9] = both(int64(rates.Read), int64(rates.Written))
	}
	return cells
}

// memoryLimit is a replica's own limit, or all that there is.
func memoryLimit(u spec.Usage, host int64) int64 { return cmp.Or(u.MemoryLimit, host) }

func percent(part float64) string { return fmt.Sprintf("%.1f%%", 100*part) }

func both(in, out int64) string { return size(in) + " / " + size(out) }

// statsOrders are the orders of --sort; replicas that are equal stay in the order
// of their names.
var statsOrders = map[string]func(a, b spec.ReplicaStats) int{
	"name":      func(a, b spec.ReplicaStats) int { return 0 },
	"cpu":       mostFirst(func(r spec.ReplicaStats) float64 { return rates(r).Cores }),
	"memory":    mostFirst(func(r spec.ReplicaStats) float64 { return float64(r.Memory) }),
	"net":       mostFirst(func(r spec.ReplicaStats) float64 { return rates(r).Received + rates(r).Sent }),
	"block":     mostFirst(func(r spec.ReplicaStats) float64 { return rates(r).Read + rates(r).Written }),
	"pids":      mostFirst(func(r spec.ReplicaStats) float64 { return float64(r.Pids) }),
	"throttled": mostFirst(func(r spec.ReplicaStats) float64 { return rates(r).Throttled }),
}

func mostFirst(of func(spec.ReplicaStats) float64) func(a, b spec.ReplicaStats) int {
	return func(a, b spec.ReplicaStats) int { return cmp.Compare(of(b), of(a)) }
}

func rates(r spec.ReplicaStats) spec.Rates {
	if r.Rates == nil {
		return spec.Rates{}
	}
	return *r.Rates
}
