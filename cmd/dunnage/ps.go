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
		ArgsUsage: "[SERVICE...]",
		Description: "Lists the replicas of the project, or of all projects where there is neither -p nor a manifest. " +
			"PORTS are shown while the kernel's rules send them to the replica.\n\n" +
			"Example:\n   dunnage ps -p shop web",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "of all projects, even where there is a manifest"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "only names"},
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
	st, err := agent.Status(ctx)
	if err != nil {
		return err
	}
	for _, problem := range st.Problems {
		p.warn("%s", problem)
	}
	if err := p.checkNames(ctx, c, agent, st, name); err != nil {
		return err
	}
	replicas := selectReplicas(st, name, c.Args().Slice())
	switch {
	case c.Bool("json"):
		return p.printJSON(replicas)
	case c.Bool("quiet"):
		return p.printNames(replicas)
	}
	if err := p.write(p.replicaTable(replicas, name == "")); err != nil {
		return err
	}
	p.tellWaiting(st, name)
	return nil
}

// selectReplicas takes a project's replicas (empty = all) out of a snapshot,
// and of them those of the services. It is never nil, for JSON's sake.
func selectReplicas(st spec.Status, name string, services []string) []spec.ReplicaStatus {
	out := []spec.ReplicaStatus{}
	for _, pr := range st.Projects {
		if name != "" && pr.Name != name {
			continue
		}
		for _, s := range pr.Services {
			if len(services) == 0 || slices.Contains(services, s.Name) {
				out = append(out, s.Replicas...)
			}
		}
	}
	return out
}

func (p *program) printNames(replicas []spec.ReplicaStatus) error {
	for _, r := range replicas {
		if err := p.print(printable(r.Replica) + "\n"); err != nil {
			return err
		}
	}
	return nil
}

func (p *program) replicaTable(replicas []spec.ReplicaStatus, withProject bool) table {
	t := table{columns: []column{
		{name: "SERVICE", drop: 6}, {name: "REPLICA"}, {name: "RELEASE", drop: 1}, {name: "STATE"}, {name: "HEALTH", drop: 5},
		{name: "RESTARTS", drop: 3}, {name: "AGE", drop: 2}, {name: "PORTS", drop: 4},
	}}
	for _, r := range replicas {
		health, colour := string(r.Health), stateColours[r.State]
		if health == "" {
			health = "-"
		}
		t.rows = append(t.rows, row{
			cells: []string{printable(r.Service), printable(r.Replica), fmt.Sprint(r.Release), string(r.State), health,
				fmt.Sprint(r.Restarts), age(p.now(), r.Started), ports(r.Ports)},
			colours: map[int]int{3: colour},
			below:   p.replicaDetail(r),
		})
	}
	if withProject {
		t.columns = append([]column{{name: "PROJECT", drop: 7}}, t.columns...)
		for i, r := range replicas {
			cells := append([]string{printable(r.Project)}, t.rows[i].cells...)
			t.rows[i].cells, t.rows[i].colours = cells, map[int]int{4: stateColours[r.State]}
		}
	}
	return t
}

var stateColours = map[spec.ReplicaState]int{
	spec.StateReady: green, spec.StateCompleted: green,
	spec.StateStarting: yellow, spec.StateDraining: yellow, spec.StateStopping: yellow, spec.StateBackoff: yellow,
	spec.StateUnhealthy: red, spec.StateFailed: red, spec.StateLost: red,
	spec.StateStopped: grey, spec.StateCreated: grey,
}

// replicaDetail is the line under a replica that isn't well.
func (p *program) replicaDetail(r spec.ReplicaStatus) string {
	detail := strings.TrimSpace(printable(r.Detail))
	if detail == "" && r.ExitCode != nil && r.State != spec.StateReady && r.State != spec.StateCompleted {
		detail = fmt.Sprintf("exit code %d", *r.ExitCode)
	}
	if r.State == spec.StateBackoff && !r.RetryAt.IsZero() {
		if detail != "" {
			detail += "; "
		}
		detail += "next try in " + took(max(r.RetryAt.Sub(p.now()), 0))
	}
	return detail
}

// tellWaiting says why services aren't as wanted.
func (p *program) tellWaiting(st spec.Status, name string) {
	for _, pr := range st.Projects {
		for _, s := range pr.Services {
			if (name == "" || pr.Name == name) && s.Waiting != "" {
				line := printable(s.Name + " of " + pr.Name + ": " + s.Waiting)
				if p.terminal.stderr { // a file gets it whole
					line = p.fit(line)
				}
				fmt.Fprintln(p.stderr, line)
			}
		}
	}
}
