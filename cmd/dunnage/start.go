package main

import "github.com/urfave/cli/v2"

func (p *program) startCommand() *cli.Command {
	return &cli.Command{
		Name:      "start",
		Usage:     "start services that were stopped",
		ArgsUsage: "[SERVICE...]",
		Description: "Starts the services (all without arguments). " +
			"While a rollout is paused, what served before the stop comes back, and the rollout stays paused.\n\n" +
			"Example:\n   dunnage start worker",
		Flags:  changeFlags(),
		Action: p.changeAction(ofServices),
	}
}
