package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/rogpeppe/go-internal/diff"
	"github.com/urfave/cli/v2"

	"dunnage/api"
	"dunnage/spec"
)

func (p *program) netCommand() *cli.Command {
	return &cli.Command{
		Name:        "net",
		Usage:       "show networks and packet rules",
		Description: "Example:\n   dunnage net rules --diff",
		Subcommands: []*cli.Command{p.netLsCommand(), p.netRulesCommand()},
	}
}

func (p *program) netLsCommand() *cli.Command {
	return &cli.Command{
		Name:        "ls",
		Usage:       "list networks, and each service's address in them",
		Description: "Example:\n   dunnage net ls",
		Flags:       []cli.Flag{jsonFlag()},
		Action:      p.withAgent(p.netLs),
	}
}

func (p *program) netLs(ctx context.Context, c *cli.Context, agent *api.Client) error {
	if err := wantArgs(c, 0, 0); err != nil {
		return err
	}
	networks, err := agent.Networks(ctx)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return p.printJSON(networks)
	}
	t := table{columns: []column{{name: "NETWORK"}, {name: "SUBNET"}, {name: "SUBNET6", drop: 2}, {name: "INTERNAL", drop: 3}, {name: "SERVICES", drop: 1, cut: leastText, wrap: true}}}
	for _, n := range networks {
		t.rows = append(t.rows, networkRow(n))
	}
	return p.write(t)
}

func networkRow(n spec.NetworkStatus) row {
	subnet6, internal := "", "no"
	if n.Subnet6.IsValid() {
		subnet6 = n.Subnet6.String()
	}
	if n.Internal {
		internal = "yes"
	}
	var services []string
	for _, s := range n.Services {
		services = append(services, s.Service+"="+s.Addr.String())
	}
	return row{cells: []string{printable(n.ID), n.Subnet.String(), subnet6, internal, printable(strings.Join(services, " "))}}
}

func (p *program) netRulesCommand() *cli.Command {
	return &cli.Command{
		Name:  "rules",
		Usage: "print dunnage's part of the kernel's packet rules",
		Description: "Prints the rules as the kernel has them, in iptables-save's form, IPv4 then IPv6. " +
			"With --diff, only where they differ from what they should be, and then the exit code is 3.\n\n" +
			"Example:\n   dunnage net rules --diff",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "diff", Usage: "compare with what they should be: - is missing in the kernel, + shouldn't be there"},
			jsonFlag(),
		},
		Action: p.withAgent(p.netRules),
	}
}

func (p *program) netRules(ctx context.Context, c *cli.Context, agent *api.Client) error {
	if err := wantArgs(c, 0, 0); err != nil {
		return err
	}
	rules, err := agent.Rules(ctx)
	if err != nil {
		return err
	}
	switch {
	case c.Bool("json"):
		err = p.printJSON(rules)
	case c.Bool("diff"):
		err = p.print(string(diff.Diff("wanted", []byte(rules.Rendered), "kernel", []byte(rules.Kernel))))
	default:
		err = p.print(rules.Kernel)
	}
	if err == nil && c.Bool("diff") && rules.Rendered != rules.Kernel {
		if rules.Held != "" {
			return &exitCode{code: exitNotConverged, err: fmt.Errorf("the kernel's rules differ from what the projects in the agent's store need, and stay so"), hint: rules.Held}
		}
		return &exitCode{code: exitNotConverged, err: fmt.Errorf("the kernel's rules differ from what they should be"), hint: "a running agent repairs them within a second; if this stays, its log says why"}
	}
	return err
}
