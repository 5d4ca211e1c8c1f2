package main

import (
	"context"

	"github.com/urfave/cli/v2"

	"dunnage/api"
	"dunnage/spec"
)

func (p *program) deployCommand() *cli.Command {
	return &cli.Command{
		Name:  "deploy",
		Usage: "make this host run what the manifest declares",
		Description: "Sends the manifest to the agent and follows until every service is ready, or the earlier release is back. " +
			"Services that didn't change aren't touched. Interrupting this command doesn't stop the deploy.\n\n" +
			"Example:\n   dunnage deploy -f compose.yaml",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "detach", Aliases: []string{"d"}, Usage: "don't wait for the outcome"},
			&cli.BoolFlag{Name: "force", Usage: "replace the replicas even of services that didn't change"},
			&cli.BoolFlag{Name: "remove-orphans", Usage: "remove services that are no longer in the manifest"},
			jsonFlag(),
		},
		Action: p.withAgent(p.deploy),
	}
}

func (p *program) deploy(ctx context.Context, c *cli.Context, agent *api.Client) error {
	r, err := p.deployRequest(c)
	if err != nil {
		return err
	}
	op, err := agent.Deploy(ctx, r)
	if err != nil {
		return err
	}
	return p.see(ctx, c, agent, op)
}

// deployRequest is what deploy sends and plan asks about.
func (p *program) deployRequest(c *cli.Context) (spec.DeployRequest, error) {
	if err := wantArgs(c, 0, 0); err != nil {
		return spec.DeployRequest{}, err
	}
	m, err := p.load(c)
	if err != nil {
		return spec.DeployRequest{}, err
	}
	if c.Command.Name != "plan" { // plan shows them among its own
		for _, n := range m.Notes {
			p.warn("%s", n)
		}
	}
	return spec.DeployRequest{Project: m.Project, RemoveOrphans: c.Bool("remove-orphans"), Force: c.Bool("force")}, nil
}
