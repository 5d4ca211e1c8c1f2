package main

import (
	"github.com/urfave/cli/v2"

	"dunnage/spec"
)

func (p *program) downCommand() *cli.Command {
	return &cli.Command{
		Name:  "down",
		Usage: "remove a project from this host",
		Description: "Stops and removes the project's replicas, networks, rules and releases. Named volumes stay unless --volumes is given.\n\n" +
			"Example:\n   dunnage down -p shop",
		Flags: changeFlags(&cli.BoolFlag{Name: "volumes", Aliases: []string{"v"}, Usage: "remove the project's named volumes, with their data"}),
		Action: p.changeAction(func(c *cli.Context) (spec.ChangeRequest, error) {
			return spec.ChangeRequest{Kind: "down", Volumes: c.Bool("volumes")}, wantArgs(c, 0, 0)
		}),
	}
}
