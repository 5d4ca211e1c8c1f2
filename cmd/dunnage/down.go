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
			"--forget drops the history too, also that of a project that is down already: releases and receipts. `dunnage gc` then removes the images that nobody else needs, and no rollback brings the project back. " +
			"Its secrets stay, and its volumes unless --volumes is given too: both are there for another deploy. What was forgotten is named.\n\n" +
			"Example:\n   dunnage down -p shop",
		Flags: changeFlags(
			&cli.BoolFlag{Name: "volumes", Aliases: []string{"v"}, Usage: "remove the project's named volumes, with their data"},
			&cli.BoolFlag{Name: "forget", Usage: "drop its releases and receipts, which lets gc free its images"},
		),
		Action: p.changeAction(func(c *cli.Context) (spec.ChangeRequest, error) {
			return spec.ChangeRequest{Kind: "down", Volumes: c.Bool("volumes"), Forget: c.Bool("forget")}, wantArgs(c, 0, 0)
		}),
	}
}
