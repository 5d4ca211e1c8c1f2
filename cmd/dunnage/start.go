package main

import "github.com/urfave/cli/v2"

func (p *program) startCommand() *cli.Command {
	return &cli.Command{
		Name:        "start",
		Usage:       "start services that were stopped",
		ArgsUsage:   "[SERVICE...]",
		Description: "Example:\n   dunnage start worker",
		Flags:       changeFlags(),
		Action:      p.changeAction(ofServices),
	}
}
