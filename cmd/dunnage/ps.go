package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"dunnage/api"
	"dunnage/spec"
)

func (p *program) psCommand() *cli.Command {
	return &cli.Command{
		Name:      "ps",
		Usage:     "list replicas",
		ArgsUsage: "[SERVICE|REPLICA...]",
		Description: "Lists the replicas of the project, or of all projects where there is neither -p nor a manifest. " +
			"A replica is named in full, or as web-1, or as shop-web-1. " +
			"HEALTH is - where nothing but the process itself is looked at. " +
			"PORTS are shown while the kernel's rules send them to the replica. " +
			"A replica that is warm runs beside what has replaced it, for as long as its STATE says (x-dunnage.keep_warm).\n\n" +
			"What is wrong with a replica stands below it on a terminal, and on standard error where the output goes elsewhere: " +
			"there it is one line a replica, with all columns. " +
			"A narrow terminal shows replicas without their generation and ports without what goes without saying, then leaves out SERVICE, PORTS, RELEASE, HEALTH, AGE, RESTARTS and PROJECT, in this order; " +
			"`--json` has everything.\n\n" +
			"Example:\n   dunnage ps -p shop web",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "of all projects, even where there is a manifest"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "only names"},
			&cli.StringSliceFlag{Name: "filter", Usage: "only those with `KEY=VALUE`: label=NAME[=VALUE], project, service, state, health; repeatable"},
			jsonFlag(),
		},
		Action: p.withAgent(p.ps),
	}
}

func (p *program) ps(ctx context.Context, c *cli.Context, agent *api.Client) error {
	name, err := "", error(nil)
	if !c.Bool("all") {
		if name, err = p.findProject(c); err != nil {
			return err
		}
	}
	wanted, err := parseFilters(c.StringSlice("filter"))
	if err != nil {
		return err
	}
	st, err := agent.Status(ctx)
	if err != nil {
		return err
	}
	for _, problem := range slices.Concat(st.Problems, st.Warnings) {
		p.warn("%s", problem)
	}
	if err := p.checkNames(ctx, c, agent, st, name, filteredBy("service", c.StringSlice("filter"))); err != nil {
		return err
	}
	for _, project := range filteredBy("project", c.StringSlice("filter")) {
		if _, found := deployed(st, project); !found {
			if _, err := agent.Releases(ctx, project); err != nil { // one that is down is known
				return err
			}
		}
	}
	wanted.apply(&st)
	replicas := selectReplicas(st, name, c.Args().Slice())
	switch {
	case c.Bool("json"):
		return p.printJSON(replicas)
	case c.Bool("quiet"):
		return p.printNames(replicas)
	}
	t := p.replicaTable(replicas, name == "", inFull)
	if p.terminal.width > 0 && t.fullWidth() > p.terminal.width {
		t = p.replicaTable(replicas, name == "", inShort)
	}
	if err := p.write(t); err != nil {
		return err
	}
	p.tellProblems(st, name, c.Args().Slice())
	return nil
}

// selectReplicas takes a project's replicas (empty = all) out of a snapshot,
// and of them those that the arguments name. It is never nil, for JSON's sake.
func selectReplicas(st spec.Status, project string, asked []string) []spec.ReplicaStatus {
	out := []spec.ReplicaStatus{}
	for _, pr := range st.Projects {
		if project != "" && pr.Name != project {
			continue
		}
		for _, s := range pr.Services {
			for _, r := range s.Replicas {
				if len(asked) == 0 || slices.Contains(asked, s.Name) || slices.ContainsFunc(asked, func(name string) bool { return isCalled(r, name) }) {
					out = append(out, r)
				}
			}
		}
	}
	return out
}

// isCalled reports whether name is one of the replica's.
func isCalled(r spec.ReplicaStatus, name string) bool {
	return spec.ReplicaIsCalled(r.Project, r.Service, r.Replica, name)
}

func (p *program) printNames(replicas []spec.ReplicaStatus) error {
	for _, r := range replicas {
		if err := p.print(printable(r.Replica) + "\n"); err != nil {
			return err
		}
	}
	return nil
}

// inFull and inShort are a replica's name and ports for a wide terminal and a
// narrow one.
func inFull(r spec.ReplicaStatus) (name, open string) { return r.Replica, ports(r.Ports) }

func inShort(r spec.ReplicaStatus) (name, open string) {
	return spec.ShortReplica(r.Service, r.Replica), shortPorts(r.Ports)
}

func (p *program) replicaTable(replicas []spec.ReplicaStatus, withProject bool, written func(spec.ReplicaStatus) (name, open string)) table {
	// What is dropped first, the name has, or the manifest; what is dropped last
	// says how the replica fares.
	t := table{columns: []column{
		{name: "SERVICE", drop: 7}, {name: "REPLICA"}, {name: "RELEASE", drop: 5}, {name: "STATE"}, {name: "HEALTH", drop: 4},
		{name: "RESTARTS", drop: 2}, {name: "AGE", drop: 3}, {name: "PORTS", drop: 6},
	}}
	for _, r := range replicas {
		below := ""
		if p.terminal.stdout {
			below = p.replicaDetail(r)
		}
		name, open := written(r)
		t.rows = append(t.rows, row{
			cells: []string{printable(r.Service), printable(name), fmt.Sprint(r.Release), p.stateCell(r), string(r.Health),
				fmt.Sprint(r.Restarts), age(p.now(), r.Started), open},
			colours: map[int]int{3: stateColours[r.State]},
			below:   below,
		})
	}
	if withProject {
		t.columns = append([]column{{name: "PROJECT", drop: 1}}, t.columns...)
		for i, r := range replicas {
			cells := append([]string{printable(r.Project)}, t.rows[i].cells...)
			t.rows[i].cells, t.rows[i].colours = cells, map[int]int{4: stateColours[r.State]}
		}
	}
	return t
}

// stateCell is a replica's state; of a warm one with the time that is left.
func (p *program) stateCell(r spec.ReplicaStatus) string {
	if r.State == spec.StateWarm && !r.WarmUntil.IsZero() {
		return fmt.Sprintf("%s %s", r.State, age(r.WarmUntil, p.now()))
	}
	return string(r.State)
}

var stateColours = map[spec.ReplicaState]int{
	spec.StateReady: green, spec.StateCompleted: green,
	spec.StateStarting: yellow, spec.StateDraining: yellow, spec.StateHeld: yellow, spec.StateWarm: yellow, spec.StateStopping: yellow, spec.StateBackoff: yellow,
	spec.StateUnhealthy: red, spec.StateUnreachable: red, spec.StateFailed: red, spec.StateLost: red,
	spec.StateStopped: grey, spec.StateCreated: grey,
}

// replicaDetail is the line under a replica that isn't well.
func (p *program) replicaDetail(r spec.ReplicaStatus) string {
	detail := strings.TrimSpace(printable(r.Detail))
	if detail == "" && r.ExitCode != nil && *r.ExitCode != 0 && r.State != spec.StateReady {
		detail = fmt.Sprintf("exit code %d", *r.ExitCode)
		if r.Pid != 0 { // it runs again
			detail = "before: " + detail
		}
	}
	if r.State == spec.StateBackoff && !r.RetryAt.IsZero() {
		if detail != "" {
			detail += "; "
		}
		detail += "next try in " + took(max(r.RetryAt.Sub(p.now()), 0))
	}
	return detail
}

// tellProblems says on stderr why services aren't as wanted, and what is wrong
// with their replicas where that doesn't stand below them already.
func (p *program) tellProblems(st spec.Status, project string, asked []string) {
	for _, pr := range st.Projects {
		if project != "" && pr.Name != project {
			continue
		}
		if pr.Busy != "" {
			p.tellWhole(pr.Name + ": " + pr.Busy)
		}
		if pr.Paused != "" { // even where no service has anything to wait with
			for _, line := range standstills(pr) {
				p.tellWhole(line)
			}
		}
		for _, s := range pr.Services {
			if s.Waiting == "paused: "+pr.Paused {
				s.Waiting = ""
			}
			replicas := selectReplicas(st, pr.Name, asked)
			replicas = slices.DeleteFunc(replicas, func(r spec.ReplicaStatus) bool { return r.Service != s.Name })
			if len(asked) > 0 && len(replicas) == 0 && !slices.Contains(asked, s.Name) {
				continue
			}
			for _, line := range p.problems(pr.Name, s, replicas) {
				p.tellWhole(line)
			}
		}
	}
}

// tellWhole writes a line to stderr; on a terminal it is broken, never cut, since
// what to do next stands at its end.
func (p *program) tellWhole(line string) {
	lines := []string{printable(line)}
	const indent = 4
	if p.terminal.stderr { // a file gets one line
		lines = p.wrapped(line, indent)
	}
	fmt.Fprintln(p.stderr, strings.Join(lines, "\n"+strings.Repeat(" ", indent)))
}

// problems says each thing about a service and its replicas once.
func (p *program) problems(project string, s spec.ServiceStatus, replicas []spec.ReplicaStatus) (lines []string) {
	waiting := printable(s.Waiting)
	if serves := s.Meanwhile(); serves != "" && waiting != "" {
		waiting += "; " + serves
	}
	for _, r := range replicas {
		detail, said := p.replicaDetail(r), printable(r.Detail)
		inWaiting := said != "" && strings.Contains(waiting, said)
		switch {
		case detail == "":
		case p.terminal.stdout && inWaiting:
			waiting = "" // it stands in the table
		case !p.terminal.stdout && !inWaiting:
			lines = append(lines, printable(r.Replica)+": "+detail)
		}
	}
	if !s.HeldUntil.IsZero() && s.HeldUntil.After(p.now()) {
		lines = append([]string{printable(s.Name+" of "+project) + ": new connections wait, " + took(s.HeldUntil.Sub(p.now())) + " more at most"}, lines...)
	}
	if lost := printable(s.Unreachable); lost != "" {
		lines = append([]string{printable(s.Name+" of "+project) + ": " + lost}, lines...)
	}
	if waiting != "" {
		lines = append([]string{printable(s.Name+" of "+project) + ": " + waiting}, lines...)
	}
	return lines
}
