package main

import (
	"github.com/urfave/cli/v2"

	"dunnage/spec"
)

func (p *program) downCommand() *cli.Command {
	return &cli.Command{
		Name:  "down",
		Usage: "stop a project and remove its replicas, networks and rules",
		Description: "Stops and removes the project's replicas, networks and rules. Services stop before those that they depend on. What stays: its history, so that `dunnage rollback` brings it back; " +
			"its logs; its images; and its named volumes with their data, unless --volumes is given, which names those that it has removed.\n\n" +
			"Example:\n   dunnage down -p shop",
		Flags: changeFlags(&cli.BoolFlag{Name: "volumes", Aliases: []string{"v"}, Usage: "remove the project's named volumes, with their data"}),
		Action: p.changeAction(func(c *cli.Context) (spec.ChangeRequest, error) {
			return spec.ChangeRequest{Kind: "down", Volumes: c.Bool("volumes")}, wantArgs(c, 0, 0)
		}),
	}
}
